# SPDX-License-Identifier: GPL-3.0-or-later
"""A person's day in a browser: Chromium on a machine of its own, names by DNS, the site's CA trusted as in an office.

The tests follow each other as the day does and share the browsers, but each logs in by itself where nobody is. What
people saw is in build/screenshots (ARTEFACTS names another folder than build). BOUWSTEEN_BROWSER is "NAME ADDRESS" of
another browser machine than the lab's own; with BOUWSTEEN_INVENTORY the names of the site are not asked of DNS.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyotp
import pytest
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException, WebDriverException
from selenium.webdriver.chromium.remote_connection import ChromiumRemoteConnection
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

TOP = Path(__file__).resolve().parents[2]
SHOTS = Path(os.environ.get("ARTEFACTS", str(TOP / "build"))) / "screenshots"
ANDRE, BJORN, KEES = "andre@degraaf.example", "bjorn@degraaf.example", "kees@vandermeer.example"
RESELLER, OTHER = "noorderict", "zuidwest"
# What the machine of the browser has for people to send.
ATTACHMENT = "/srv/prijslijst één.txt"


def until[T](what: str, look: Callable[[], T], *, seconds: float = 30.0) -> T:
    """Look until there is something; a page that is still moving counts as nothing."""
    deadline, trouble = time.monotonic() + seconds, ""
    while True:
        try:
            if seen := look():
                return seen
        except WebDriverException as error:
            trouble = str(error.msg).partition("\n")[0]
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s {trouble}"
        time.sleep(0.1)


@dataclass
class Page:
    """What one person has before him."""

    driver: Any
    who: str

    def open(self, address: str) -> None:
        self.driver.get(address)

    def all(self, css: str, text: str = "") -> list[WebElement]:
        """What can be seen of a kind, with a text in it."""
        found = self.driver.find_elements(By.CSS_SELECTOR, css)
        return [element for element in found if element.is_displayed() and text in element.text]

    def see(self, css: str, text: str = "", *, seconds: float = 30.0) -> WebElement:
        try:
            return until(f"{css} {text!r}", lambda: self.all(css, text), seconds=seconds)[0]
        except AssertionError:
            self.shot("failed")
            raise

    def click(self, css: str, text: str = "") -> None:
        def pressed() -> bool:
            element = self.all(css, text)[0] if self.all(css, text) else None
            if element is None or not element.is_enabled():
                return False
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        try:
            until(f"a click on {css} {text!r}", pressed)
        except AssertionError:
            self.shot("failed")
            raise

    def fill(self, css: str, value: str) -> None:
        """Type into a field, again if the page took away what was typed while it was still being built."""

        def typed() -> bool:
            element = self.all(css)[0]
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.clear()
            element.send_keys(value)
            return bool(element.get_attribute("value") == value)

        self.see(css)
        until(f"typing into {css}", typed)

    def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(WebDriverException):
            self.driver.save_screenshot(str(SHOTS / f"{self.who}-{name}.png"))

    def errors(self, of: str) -> list[str]:
        """What the browser's console complains of since it was asked before, about pages of one address."""
        entries = self.driver.execute("getLog", {"type": "browser"})["value"]
        return [e["message"] for e in entries if e["level"] in {"SEVERE", "WARNING"} and of in e["message"]]

    def calm(self) -> None:
        """Wait until the keyboard's place has not moved for half a second."""
        last: list[Any] = [None, time.monotonic()]

        def steady() -> bool:
            now = self.driver.execute_script("return [document.activeElement, document.getAnimations().length]")
            if now != last[0]:
                last[:] = [now, time.monotonic()]
            return time.monotonic() - last[1] > 0.5

        until("a page at rest", steady)


@dataclass
class Person:
    """Somebody who works in webmail: what he knows by heart, and his browser."""

    login: str
    name: str
    site: str
    password: str = field(repr=False)
    page: Page
    factor: str = field(default="", repr=False)

    def try_login(self, password: str | None = None) -> None:
        """To the login page and through its first step; the browser forgets who was there."""
        self.page.driver.delete_all_cookies()
        self.page.open(self.site)
        self.page.fill("input[ng-model='app.creds.username']", self.login)
        self.page.fill("#passwordField", self.password if password is None else password)
        self.page.click("form[name=loginForm] button[type=submit]")

    def code(self) -> str:
        """A code of the second factor that is good for some seconds yet."""
        totp = pyotp.TOTP(self.factor)
        until("a fresh code", lambda: totp.interval - time.time() % totp.interval > 5)
        return totp.now()

    def log_in(self) -> None:
        self.try_login()
        if self.factor:
            self.page.fill("input[ng-model='app.creds.verificationCode']", self.code())
            self.page.click("form[name=loginForm] button[type=submit]")
        self.at_work()

    def at_work(self) -> None:
        self.page.see("md-sidenav", self.name)

    def go(self, module: str) -> None:
        """To Mail, Calendar, Contacts or Preferences; logs in first where nobody is."""
        if not self.page.all("a[href$='logoff']"):
            self.log_in()
        current = self.page.driver.current_url.partition("#")[0].removesuffix("/view")
        if not current.endswith(f"/{module}"):
            base = re.match(r"(.*/so/[^/]+)/", self.page.driver.current_url)
            assert base, self.page.driver.current_url
            self.page.open(f"{base[1]}/{module}{'' if module == 'Preferences' else '/view'}")
        self.at_work()

    def new(self, kind: str) -> None:
        """The round button at the lower right, and one of those that it unfolds."""
        self.page.click("md-fab-speed-dial md-fab-trigger button")
        self.page.click(f"md-fab-actions button[ng-click*='{kind}']")

    def pick(self, field_css: str, part: str, whole: str) -> None:
        """A colleague from the list that opens while typing."""
        self.page.see(field_css)
        # A window that is still opening takes the keyboard away, and what was typed would be taken as an address.
        self.page.calm()

        def offered() -> list[WebElement]:
            if not (found := self.page.all("md-autocomplete-parent-scope", whole)):
                element = self.page.all(field_css)[0]
                self.page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
                if element.get_attribute("value") != part:
                    element.clear()
                    element.send_keys(part)
            return found

        until(f"{whole} among the suggestions", offered)
        self.page.click("md-autocomplete-parent-scope", whole)

    def read(self, subject: str) -> None:
        """Open the mail with a subject in the inbox, fetching until it is there."""
        self.go("Mail")

        def arrived() -> bool:
            if self.page.all("md-list-item", subject):
                return True
            for button in self.page.all("button[ng-click='mailbox.refresh()']"):
                button.click()
                time.sleep(0.5)
            return False

        try:
            until(f"mail {subject!r}", arrived, seconds=60)
        except AssertionError:
            self.page.shot("failed")
            raise
        self.page.click("md-list-item", subject)
        self.page.see("md-card, #detailView", subject)


# ------------------------------------------------------------------------------------------------------ the browsers


@pytest.fixture(scope="session")
def computer(machine: Any, target: Any) -> Any:
    """The machine that the browsers run on; tests/acceptance/browser.yml makes it."""
    name, address = os.environ.get("BOUWSTEEN_BROWSER", "browser.bouwsteen.example 10.213.0.20").split()
    variables = {"browser_name": name, "browser_address": address, "browser_ca_file": str(target.ca_file)}
    done = subprocess.run(
        ["ansible-playbook", "tests/acceptance/browser.yml", "-e", json.dumps(variables)],
        cwd=TOP, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    computer = type(machine)(name, address)
    computer.run("tee", ATTACHMENT, stdin="Brood € 2,95\nGebak € 3,50\n")
    return computer


@pytest.fixture(scope="session")
def browser(computer: Any, machine: Any) -> Callable[..., contextlib.AbstractContextManager[Page]]:
    """Opens browsers: `browser("andre")`, in Dutch unless another language is asked for."""

    @contextlib.contextmanager
    def opened(who: str, language: str = "nl") -> Iterator[Page]:
        options = webdriver.ChromeOptions()
        options.add_argument("--headless=new")
        options.add_argument("--window-size=1360,1000")
        options.add_argument(f"--lang={language}")
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        if "BOUWSTEEN_INVENTORY" in os.environ:
            options.add_argument(f"--host-resolver-rules=MAP *.example {machine.address}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # A box that a script opens stays open, to be found.
        options.unhandled_prompt_behavior = "ignore"
        connection = ChromiumRemoteConnection(f"http://{computer.address}:9515", "goog", "chrome")
        connection.add_command("getLog", "POST", "/session/$sessionId/se/log")
        driver = webdriver.Remote(connection, options=options)
        try:
            yield Page(driver, who)
        finally:
            driver.quit()

    return opened


@pytest.fixture(scope="module")
def site(inventory: dict[str, Any]) -> Callable[[str, str], str]:
    """Address of a reseller's page: `site("webmail", "noorderict")`."""
    variables = inventory["_meta"]["hostvars"]
    return lambda page, reseller: f"https://{page}.{variables[reseller]['reseller_domain']}/"


def without_second_factor(machine: Any, login: str) -> None:
    rows = machine.sql(f"SELECT user_id FROM directory.users WHERE login = '{login}'")
    words = ["sogo-tool", "user-preferences", "unset", "defaults", rows[0][0], "SOGoTOTPEnabled"]
    machine.run("runuser", "-u", "sogo", "--", *words, check=False)


@pytest.fixture(scope="module")
def andre(mail: Any, machine: Any, browser: Any, site: Any) -> Iterator[Person]:
    """The person whose day it is; afterwards he has the password of the other tests, and no second factor."""
    without_second_factor(machine, ANDRE)
    before = machine.sql(f"SELECT password_hash FROM directory.users WHERE login = '{ANDRE}'")[0][0]
    with browser("andre") as page:
        yield Person(ANDRE, "André Müller", site("webmail", RESELLER), mail[ANDRE].password, page)
    without_second_factor(machine, ANDRE)
    machine.sql(f"UPDATE directory.users SET password_hash = '{before}' WHERE login = '{ANDRE}'")


@pytest.fixture(scope="module")
def bjorn(mail: Any, browser: Any, site: Any) -> Iterator[Person]:
    """His colleague."""
    with browser("bjorn") as page:
        yield Person(BJORN, "Björn Ångström", site("webmail", RESELLER), mail[BJORN].password, page)


def play(inventory: str, playbook: str, *words: str) -> str:
    done = subprocess.run(
        ["ansible-playbook", "-i", inventory, f"playbooks/{playbook}", *words],
        cwd=TOP, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


INVENTORY = os.environ.get("BOUWSTEEN_INVENTORY", str(TOP / "inventories/demo"))


# ---------------------------------------------------------------------------------------------------------- the day


def test_a_one_time_link_sets_a_password_once_and_leads_to_webmail(andre: Person, site: Any) -> None:
    page, account = andre.page, site("account", RESELLER)
    said = play(INVENTORY, "invite.yml", "-e", f"user={ANDRE}")
    links = re.findall(rf"{re.escape(account)}[^\s\"']+", said)
    assert len(links) == 1, said

    page.open(links[0])
    page.see("h1", "wachtwoord")
    assert "Noorder ICT" in page.driver.title
    page.shot("01-link")
    page.fill("#password", "andre-noorderict")
    page.fill("#again", "andre-noorderict")
    page.click("button[type=submit]")
    page.see(".problems")
    page.shot("02-too-easy")
    # The browser notes the refusal itself (422), and nothing else.
    assert [message for message in page.errors(account) if "422" not in message] == []

    andre.password = "drie-korenaren-Zingen-42"
    page.fill("#password", andre.password)
    page.fill("#again", andre.password)
    page.click("button[type=submit]")
    page.see("a.button")
    page.shot("03-done")
    assert page.errors(account) == []

    page.click("a.button")
    page.see("#passwordField")
    page.open(links[0])
    page.see("h1")
    assert not page.all("#password"), "a used link asks for a password again"
    page.shot("04-used")
    andre.log_in()
    page.shot("05-inbox")


def test_a_second_factor_is_asked_for_once_it_is_on(andre: Person) -> None:
    page = andre.page
    andre.go("Preferences")
    page.click("md-checkbox[ng-model='app.preferences.defaults.SOGoTOTPEnabled']")
    andre.factor = str(page.see("sg-qr-code").get_attribute("text"))
    page.fill("#totpVerificationCode", andre.code())
    page.shot("06-second-factor")
    page.click("button[ng-click='app.save(preferencesForm)']")
    page.see("md-toast", "opgeslagen")

    andre.try_login()
    code = "input[ng-model='app.creds.verificationCode']"
    page.fill(code, "000000" if andre.code() != "000000" else "000001")
    page.shot("07-code")
    asked = "return performance.getEntriesByType('resource').filter(e => e.name.endsWith('/SOGo/connect')).length"
    before = page.driver.execute_script(asked)
    page.click("form[name=loginForm] button[type=submit]")
    until("the wrong code is answered", lambda: page.driver.execute_script(asked) > before)
    assert page.all(code)
    assert not page.all("a[href$='logoff']")
    andre.log_in()


def test_a_mail_with_an_attachment_reaches_a_colleague(andre: Person, bjorn: Person) -> None:
    page, subject = andre.page, f"Prijslijst {uuid.uuid4().hex[:8]} – één ĳskast"
    andre.go("Mail")
    andre.new("newMessage($event)")
    page.see("#mailEditor .ck-editor__editable")
    andre.pick("#mailEditor md-chips input", "Bj", "Björn Ångström")
    page.fill("#mailEditor input[name=subject]", subject)
    page.see(".ck-editor__editable").send_keys("Dag Björn,\n\nHierbij de prijslijst.\n\nGroet, André")
    page.driver.find_element(By.ID, "fileInput").send_keys(ATTACHMENT)
    page.see("#mailEditor .sg-mail-editor-attachments md-chip", "prijslijst")
    page.shot("08-mail")
    page.click("button[ng-click='editor.send()']")
    until("the editor closes", lambda: not page.all("#mailEditor"))

    bjorn.read(subject)
    bjorn.page.see("md-card", "Hierbij de prijslijst.")
    bjorn.page.see("md-card", "prijslijst één.txt")
    bjorn.page.shot("09-mail")


def test_a_colleague_is_invited_and_accepts(andre: Person, bjorn: Person) -> None:
    page, title = andre.page, f"Overleg {uuid.uuid4().hex[:8]}"
    andre.go("Calendar")
    andre.new("appointment")
    page.fill("input[ng-model='editor.component.summary']", title)
    andre.pick("md-dialog md-autocomplete[md-search-text='editor.searchText'] input", "Bj", "Björn Ångström")
    page.see("md-dialog .attendees-chips", "Björn")
    page.shot("10-meeting")
    page.click("md-dialog button[type=submit]")
    page.see(".sg-event", title)
    page.shot("11-calendar")

    bjorn.read(title)
    bjorn.page.shot("12-invitation")
    bjorn.page.click("button[ng-click*=\"iCalendarAction('accept')\"]")
    until("no more to accept", lambda: not bjorn.page.all("button[ng-click*=\"iCalendarAction('accept')\"]"))
    bjorn.go("Calendar")
    bjorn.page.see(".sg-event", title)

    page.driver.refresh()
    page.click(".sg-event", title)
    page.see("md-dialog", title)
    until(
        "the organiser sees that he comes",
        lambda: page.driver.find_elements(By.CSS_SELECTOR, "md-dialog .icon-accepted"),
    )
    page.shot("13-accepted")
    page.click("button[ng-click='editor.close()']")


def test_a_task_is_added(andre: Person) -> None:
    page, title = andre.page, f"Bloem bestellen {uuid.uuid4().hex[:8]}"
    andre.go("Calendar")
    andre.new("task")
    page.fill("input[ng-model='editor.component.summary']", title)
    page.click("md-dialog button[type=submit]")
    until("the editor closes", lambda: not page.all("md-dialog"))
    page.driver.refresh()
    page.click("md-tab-item", "TAKEN")
    page.see("md-list-item", title)
    page.shot("14-task")


def test_a_contact_whose_name_is_a_script_is_a_contact_with_a_strange_name(andre: Person) -> None:
    page = andre.page
    name = "Kwaad<script>window.struck=1</script><img src=x onerror=\"window.struck=1;alert('raak')\">"
    andre.go("Contacts")
    andre.new("card")
    page.fill("input[ng-model='editor.card.c_givenname']", name)
    page.fill("input[ng-model='editor.card.c_sn']", "{{constructor.constructor('window.struck=1')()}}")
    page.fill("input[ng-model='editor.card.c_cn']", name)
    page.click("button[ng-click='editor.addEmail($event)'], button[ng-click*='addEmail']")
    page.fill("input[ng-model='email.value']", "kwaad@buiten.example")
    page.click("button[ng-click='editor.save(contactForm)']")
    unstruck(page)
    page.driver.refresh()
    page.click("md-list-item", "Kwaad")
    page.see("#detailView, md-card, .sg-contact", "kwaad@buiten.example")
    page.shot("15-contact")
    unstruck(page)
    andre.go("Mail")
    andre.new("newMessage($event)")
    page.see("#mailEditor .ck-editor__editable")
    andre.pick("#mailEditor md-chips input", "kwaad", "kwaad@buiten.example")
    page.see("#mailEditor md-chip", "Kwaad")
    page.shot("16-recipient")
    unstruck(page)
    page.click("button[ng-click='editor.cancel()']")


def unstruck(page: Page) -> None:
    """Nothing of the script ran, and nothing of it is in the page as anything but text."""
    with pytest.raises(NoAlertPresentException):
        _ = page.driver.switch_to.alert.text
    assert page.driver.execute_script("return window.struck") is None
    assert page.driver.find_elements(By.CSS_SELECTOR, "img[src='x'], img[onerror]") == []


def test_a_changed_password_stays_when_the_resellers_files_are_applied(andre: Person, machine: Any) -> None:
    page, old, new = andre.page, andre.password, "Vijf-ovens-Branden-77"
    andre.go("Preferences")
    page.click("md-tab-item", "WACHTWOORD")
    page.fill("input[ng-model='app.passwords.oldPassword']", old)
    page.fill("input[ng-model='app.passwords.newPassword']", new)
    page.fill("input[ng-model='app.passwords.newPasswordConfirmation']", new)
    page.shot("17-password")
    page.click("button[ng-click='app.changePassword()']")
    page.see("md-dialog", "veranderd")
    page.click("md-dialog button")
    until("the box is gone", lambda: not page.all("md-dialog"))
    page.click("a[href$='logoff']")
    page.see("#passwordField")
    page.shot("18-logged-out")

    play(INVENTORY, "resellers.yml", "--limit", RESELLER)
    andre.try_login(old)
    page.see("[ng-switch-when=error]", "Onjuiste gebruikersnaam of wachtwoord")
    andre.password = new
    andre.log_in()


# -------------------------------------------------------------------------------------------------------- the pages


def look(page: Page, address: str) -> dict[str, str]:
    """What tells one reseller's login page from another's."""
    page.open(address)
    page.see("#passwordField")
    look: dict[str, str] = page.driver.execute_async_script(
        """const done = arguments[0];
        const named = [...document.querySelectorAll('[alt],[title],[aria-label],meta[content]')];
        const words = e => ['alt', 'title', 'aria-label', 'content'].map(a => e.getAttribute(a) || '').join(' ');
        const panel = getComputedStyle(document.querySelector('.sg-login'));
        const image = [...document.images].find(i => i.naturalWidth && i.offsetWidth);
        const text = async address => (await fetch(address)).text();
        (async () => done({
            title: document.title, colour: panel.backgroundColor, shown: await text(image.src),
            logo: await text('/brand/logo'), icon: await text(document.querySelector('link[rel~=icon]').href),
            favicon: await text('/brand/favicon.svg'),
            words: [document.title, document.body.innerText, ...named.map(words)].join('\\n')}))();"""
    )
    return look


def test_login_pages_are_the_resellers_own(browser: Any, site: Any, inventory: dict[str, Any]) -> None:
    variables = inventory["_meta"]["hostvars"]
    with browser("login") as page:
        looks = {}
        for reseller in (RESELLER, OTHER):
            looks[reseller] = look(page, site("webmail", reseller))
            page.shot(reseller)
            assert looks[reseller]["shown"] == looks[reseller]["logo"]
            assert looks[reseller]["icon"] == looks[reseller]["favicon"]
            assert variables[reseller]["reseller_title"] in looks[reseller]["title"]
    for key in ("title", "logo", "colour"):
        assert looks[RESELLER][key] != looks[OTHER][key], key
    # Neither the product, nor who runs it, nor anybody else who buys it.
    for reseller, other in ((RESELLER, OTHER), (OTHER, RESELLER)):
        strangers = [variables[other]["reseller_title"], variables[other]["reseller_domain"], other]
        for word in ("SOGo", "Inverse", "Alinto", "Bouwsteen", *strangers):
            assert word.lower() not in looks[reseller]["words"].lower(), f"{word} on the page of {reseller}"


def test_somebody_elses_person_is_told_what_a_mistyped_password_is_told(browser: Any, site: Any, mail: Any) -> None:
    said = {}
    with browser("stranger") as page:
        for login, password in (
            (BJORN, "verkeerd-verkeerd"),
            (KEES, mail[KEES].password),
            ("niemand@degraaf.example", "x"),
        ):
            Person(login, "", site("webmail", RESELLER), password, page).try_login()
            said[login] = page.see("[ng-switch-when=error]").text
            page.shot(login.partition("@")[0])
        assert len(set(said.values())) == 1, said
        assert "Onjuiste gebruikersnaam of wachtwoord" in said[KEES]
        # At his own reseller's page the same password is right.
        Person(KEES, "Kees van der Meer", site("webmail", OTHER), mail[KEES].password, page).log_in()


WORDS = {"nl": ("Gebruikersnaam", "Agenda"), "en": ("Username", "Calendar")}


@pytest.mark.parametrize("language", ["nl", "en"])
def test_people_read_their_own_language(browser: Any, site: Any, mail: Any, language: str) -> None:
    name, calendar = WORDS[language]
    login, cn = (
        (BJORN, "Björn Ångström") if language == "nl" else ("s.kowalczyk@delinde.example", "Stanisław Kowalczyk")
    )
    with browser(f"language-{language}", language) as page:
        page.open(site("webmail", RESELLER))
        page.see("form[name=loginForm] label", name)
        person = Person(login, cn, site("webmail", RESELLER), mail[login].password, page)
        person.go("Calendar")
        page.see("md-sidenav", calendar)
        page.shot("calendar")
        page.open(f"{site('account', RESELLER)}setup")
        page.see("h1")
        assert page.driver.find_element(By.TAG_NAME, "html").get_attribute("lang") == language
        page.shot("setup")
        assert page.errors(site("account", RESELLER)) == []
