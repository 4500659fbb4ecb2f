# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's decisions."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.bouwsteen.hosting.plugins.module_utils import lab
from ansible_collections.bouwsteen.hosting.plugins.module_utils.lab import LabError, Machine, Settings
from hypothesis import given
from hypothesis import strategies as st

SETTINGS = Settings()
MIRROR = lab.Mirror("http://mirror.example/debian", "http://mirror.example/security")


def machine(name: str = "m1.bouwsteen.example", address: str = "10.213.0.10") -> Machine:
    return lab.parse_machines([{"name": name, "address": address}], SETTINGS)[0]


# --- machines


def test_a_machine_gets_its_ipv6_address_from_the_digits_of_its_ipv4_address():
    assert machine(address="10.213.0.42").address6 == "fd00:b5::42"


def test_a_machine_keeps_what_was_declared():
    declared = {
        "name": "m1.bouwsteen.example",
        "address": "10.213.0.10",
        "address6": "FD00:B5:0::0099",
        "memory": "2 GiB",
        "image": "other",
        "options": ["--bind=/dev/fuse"],
    }
    (parsed,) = lab.parse_machines([declared], SETTINGS)
    assert parsed == Machine(
        "m1.bouwsteen.example", "10.213.0.10", "fd00:b5::99", "other", 2 * 1024**3, ("--bind=/dev/fuse",)
    )
    assert parsed.record()["options"] == ["--bind=/dev/fuse"]
    assert parsed.record()["short"] == parsed.short


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (
            {"name": "M1.example", "address": "10.213.0.10"},
            (
                "M1.example: not a machine name; allowed: lower-case host name of at most 64 characters under example,"
                " like m1.bouwsteen.example"
            ),
        ),
        ({"name": "m1.bouwsteen.test", "address": "10.213.0.10"}, "m1.bouwsteen.test: not a machine name"),
        ({"name": "m1.notexample", "address": "10.213.0.10"}, "m1.notexample: not a machine name"),
        ({"name": "x" * 60 + ".example", "address": "10.213.0.10"}, "not a machine name"),
        ({"name": "m1;reboot.example", "address": "10.213.0.10"}, "m1;reboot.example: not a machine name"),
        (
            {"name": "m1.example", "address": "10.214.0.10"},
            (
                "m1.example: address: not usable (found 10.214.0.10); allowed: an address of 10.213.0.0/24 other than"
                " 10.213.0.1"
            ),
        ),
        ({"name": "m1.example", "address": "10.213.0.1"}, "address: not usable (found 10.213.0.1)"),
        ({"name": "m1.example", "address": "10.213.0.0"}, "address: not usable (found 10.213.0.0)"),
        ({"name": "m1.example", "address": "10.213.0.255"}, "address: not usable (found 10.213.0.255)"),
        ({"name": "m1.example", "address": "ten"}, "address: not usable (found ten)"),
        ({"name": "m1.example", "address": "fd00:b5::9"}, "address: not usable (found fd00:b5::9)"),
        (
            {"name": "m1.example", "address": "10.213.0.9", "address6": "fd00:b6::9"},
            (
                "m1.example: address6: not usable (found fd00:b6::9); allowed: an address of fd00:b5::/64 other than"
                " fd00:b5::1"
            ),
        ),
        (
            {"name": "m1.example", "address": "10.213.0.9", "memory": "much"},
            "m1.example: memory: not a size (found 'much'); allowed: a number of bytes, or one with K, M, G or T",
        ),
    ],
)
def test_a_bad_machine_is_named_with_what_is_allowed(item, problem):
    with pytest.raises(LabError) as caught:
        lab.parse_machines([item], SETTINGS)
    assert problem in str(caught.value)


def test_all_bad_machines_are_named_at_once():
    with pytest.raises(LabError) as caught:
        lab.parse_machines([{"name": "A", "address": "1"}, {"name": "B", "address": "2"}], SETTINGS)
    assert str(caught.value).count("not a machine name") == 2
    assert str(caught.value).count("not usable") == 2


def test_two_machines_with_one_address_are_refused():
    items = [{"name": "a.example", "address": "10.213.0.9"}, {"name": "b.example", "address": "10.213.0.9"}]
    with pytest.raises(LabError) as caught:
        lab.parse_machines(items, SETTINGS)
    assert str(caught.value) == (
        "b.example: address 10.213.0.9 is also that of a.example; b.example: address6 fd00:b5::9 is also that of"
        " a.example"
    )


def test_an_address_of_another_machine_of_the_lab_is_refused():
    there = [machine("old.example", "10.213.0.9"), machine("m1.example", "10.213.0.8")]
    wanted = [machine("m1.example", "10.213.0.8"), machine("new.example", "10.213.0.9")]
    assert lab.conflicts(wanted, there) == [
        "new.example: address 10.213.0.9 already belongs to machine old.example of this lab",
        "new.example: address6 fd00:b5::9 already belongs to machine old.example of this lab",
    ]
    assert lab.conflicts(there, there) == []


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]{1,9}){1,2}\.example", fullmatch=True))
def test_a_short_name_fits_an_interface_and_is_the_same_each_time(name):
    short = lab.short_name(name)
    assert len("vb-" + short) <= 15
    assert short == lab.short_name(name)
    assert short.replace("-", "").isalnum()


def test_short_names_of_namesakes_differ():
    assert lab.short_name("m1.bouwsteen.example") != lab.short_name("m1.molecule.example")


@given(st.integers(2, 65533), st.integers(2, 65533))
def test_ipv6_addresses_are_as_unique_as_their_ipv4_addresses(one, other):
    settings = Settings(address="10.8.0.1/16")
    base = ipaddress.IPv4Address("10.8.0.0")
    made = [lab.address6_for(str(base + number), settings) for number in (one, other)]
    assert (made[0] == made[1]) == (one == other)
    assert all(ipaddress.IPv6Address(address) in settings.network6 for address in made)


@pytest.mark.parametrize(
    ("text", "size"), [(None, None), ("", None), (512, 512), ("4K", 4096), ("1 GiB", 1024**3), ("2t", 2 * 1024**4)]
)
def test_sizes(text, size):
    assert lab.parse_size(text) == size


def test_machines_come_from_inventory_hosts_with_a_lab_address():
    variables = {
        "a.example": {"lab_address": "10.213.0.2", "lab_memory": "1G", "other": 1},
        "b.example": {"ansible_host": "192.0.2.1"},
        "c.example": {"lab_address": "10.213.0.3", "lab_options": ["--bind=/x"], "lab_image": "i", "lab_address6": "x"},
    }
    assert lab.machines_of_inventory(["a.example", "b.example"], variables) == [
        {"name": "a.example", "address": "10.213.0.2", "memory": "1G"}
    ]
    assert lab.machines_of_inventory(["c.example"], variables) == [
        {"name": "c.example", "address": "10.213.0.3", "address6": "x", "image": "i", "options": ["--bind=/x"]}
    ]


def test_the_table_has_a_line_for_each_machine():
    rows = [{**machine().record(), "state": "running"}, {**machine("x.example", "10.213.0.9").record(), "state": "off"}]
    assert lab.table(rows) == [
        "m1.bouwsteen.example  10.213.0.10  fd00:b5::10  running",
        "x.example             10.213.0.9   fd00:b5::9   off",
    ]
    assert lab.table([]) == []


# --- what a new machine is given


def test_a_new_machine_has_its_addresses_its_keys_and_the_cache():
    files = lab.machine_files(machine(), SETTINGS, "ssh-ed25519 AAAA person\n", "PRIVATE")
    network = files["etc/systemd/network/10-host0.network"][0]
    assert "Address=10.213.0.10/24\n" in network
    assert "Address=fd00:b5::10/64\n" in network
    assert "Gateway=10.213.0.1\n" in network
    assert files["etc/hostname"] == ("m1.bouwsteen.example\n", 0o644)
    assert files["etc/ssh/ssh_host_ed25519_key"] == ("PRIVATE", 0o600)
    assert files["root/.ssh/authorized_keys"] == ("ssh-ed25519 AAAA person\n", 0o600)
    assert 'Acquire::http::Proxy "http://10.213.0.1:3142";' in files["etc/apt/apt.conf.d/80lab-cache"][0]
    assert files["etc/resolv.conf"][0].startswith("nameserver 10.213.0.1\n")
    assert "10.213.0.10 m1.bouwsteen.example m1\n" in files["etc/hosts"][0]


def test_ssh_checks_host_keys_against_the_labs_own_list():
    config = lab.ssh_config([machine()], SETTINGS)
    assert "Host m1.bouwsteen.example\n    HostName 10.213.0.10\n" in config
    assert "StrictHostKeyChecking yes" in config
    assert "UserKnownHostsFile /var/lib/bouwsteen-lab/ssh/known_hosts" in config
    assert lab.known_hosts([(machine(), "ssh-ed25519 AAAA m1\n")]) == (
        "m1.bouwsteen.example,10.213.0.10,fd00:b5::10 ssh-ed25519 AAAA\n"
    )


# --- the host


def chain(**keys: str) -> dict[str, object]:
    return {"chain": {"family": "inet", "table": "filter", "name": "input", **keys}}


def test_a_firewall_that_drops_what_it_does_not_know_is_an_obstacle():
    ruleset = {"nftables": [{"metainfo": {}}, chain(hook="input", policy="drop")]}
    assert lab.firewall_obstacles(ruleset, SETTINGS) == [
        (
            "the firewall chain inet filter input of this host drops what it does not know, which cuts the lab off;"
            ' allow the bridge first: nft insert rule inet filter input iifname "bouwsteen0" accept'
        )
    ]


@pytest.mark.parametrize(
    "ruleset",
    [
        [chain(hook="input", policy="accept")],
        [chain(hook="output", policy="drop")],
        [chain()],
        [chain(hook="forward", policy="drop", table="bouwsteen_lab")],
        [chain(hook="forward", policy="drop", family="bridge")],
        [
            chain(hook="input", policy="drop"),
            {
                "rule": {
                    "family": "inet",
                    "table": "filter",
                    "chain": "input",
                    "expr": [{"match": {"left": {"meta": {"key": "iifname"}}, "right": "bouwsteen0"}}],
                }
            },
        ],
    ],
)
def test_a_firewall_that_lets_the_bridge_through_is_none(ruleset):
    assert lab.firewall_obstacles({"nftables": ruleset}, SETTINGS) == []


def test_an_interface_in_the_labs_network_is_an_obstacle():
    addresses = [
        {"ifname": "bouwsteen0", "addr_info": [{"local": "10.213.0.1", "prefixlen": 24, "scope": "global"}]},
        {"ifname": "eth0", "addr_info": [{"local": "10.213.0.7", "prefixlen": 16, "scope": "global"}]},
        {"ifname": "eth1", "addr_info": [{"local": "fd00:b5::7", "prefixlen": 64, "scope": "global"}]},
        {"ifname": "eth2", "addr_info": [{"local": "fe80::1", "prefixlen": 64, "scope": "link"}]},
        {"ifname": "eth3", "addr_info": [{"local": "192.0.2.1", "prefixlen": 24, "scope": "global"}, {}]},
        {"ifname": "eth4"},
    ]
    found = lab.address_obstacles(addresses, SETTINGS)
    assert found == [
        (
            "interface eth0 already uses 10.213.0.7/16, which overlaps the lab's 10.213.0.0/24; set"
            " lab_bridge_address and lab_bridge_address6 to networks that are free"
        ),
        (
            "interface eth1 already uses fd00:b5::7/64, which overlaps the lab's fd00:b5::/64; set"
            " lab_bridge_address and lab_bridge_address6 to networks that are free"
        ),
    ]


HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"


def test_a_listener_on_all_addresses_at_a_port_of_the_lab_is_an_obstacle():
    tcp = HEADER + "   0: 00000000:0035 00000000:0000 0A 0:0\n   1: 0100007F:0C46 00000000:0000 0A 0:0\n"
    udp6 = HEADER + f"   0: {'0' * 32}:14B4 {'0' * 32}:0000 07 0:0\n"
    text = (
        "a program on this host listens on all addresses at {0} port {1}, which the lab needs on its bridge; see ss"
        " --{0} --listening --processes and bind the program to its own addresses"
    )
    assert lab.port_obstacles({"tcp": tcp, "udp6": udp6}) == [text.format("tcp", 53), text.format("udp", 5300)]


def test_other_sockets_are_no_obstacle():
    connected = HEADER + "   0: 00000000:0035 0101A8C0:1000 01 0:0\n   1: 00000000:0050 00000000:0000 0A 0:0\n"
    assert lab.port_obstacles({"tcp": connected, "udp": HEADER}) == []


def test_the_nft_table_is_replaced_whole_and_hides_only_the_labs_network():
    text = lab.nft_ruleset(SETTINGS)
    assert text.index("delete table inet bouwsteen_lab") < text.index("chain postrouting")
    assert 'ip saddr 10.213.0.0/24 oifname != "bouwsteen0" masquerade' in text


# --- images


def test_mirrors_are_those_of_the_host():
    text = (
        "https://other.example/apt cloud main Google\n"
        "http://mirror.example/debian/ bookworm-backports main Debian Backports\n"
        "http://mirror.example/debian/ bookworm contrib Debian\n"
        "http://mirror.example/debian/ bookworm main Debian\n"
        "http://mirror.example/security bookworm-security main Debian-Security\n"
    )
    assert lab.mirror_from_indextargets(text) == MIRROR


def test_mirrors_are_found_before_the_first_update_when_there_are_no_labels():
    text = (
        "https://other.example/apt cloud-bookworm main\n"
        "http://mirror.example/debian bookworm main\n"
        "http://mirror.example/security bookworm-security main \n"
    )
    assert lab.mirror_from_indextargets(text) == MIRROR


def test_a_mirror_list_of_a_cloud_image_is_followed():
    text = (
        "mirror+file:/etc/apt/mirrors/debian.list trixie main Debian\n"
        "mirror+file:/etc/apt/mirrors/debian-security.list trixie-security main Debian-Security\n"
    )
    lists = {
        "/etc/apt/mirrors/debian.list": "# chosen at boot\n\nhttp://mirror.example/debian priority:1\n",
        "/etc/apt/mirrors/debian-security.list": "http://mirror.example/security/\n",
    }
    assert lab.mirror_from_indextargets(text, lists) == MIRROR
    with pytest.raises(LabError, match="no Debian main or security archive"):
        lab.mirror_from_indextargets(text, {})


def test_a_host_without_a_security_archive_is_told_what_to_do():
    with pytest.raises(LabError) as caught:
        lab.mirror_from_indextargets("http://mirror.example/debian trixie main Debian\n")
    assert str(caught.value) == (
        "no Debian security archive among the host's package sources; the lab takes its mirrors from there: add it to"
        " /etc/apt, or set lab_mirror and lab_mirror_security"
    )


def test_another_recipe_is_another_image():
    base = lab.Image("machine", ("python3", "apt"))
    digests = {
        base.digest(MIRROR),
        lab.Image("machine", ("python3",)).digest(MIRROR),
        lab.Image("machine", ("python3", "apt"), suite="forky").digest(MIRROR),
        lab.Image("machine", ("python3", "apt"), bootable=False).digest(MIRROR),
        base.digest(lab.Mirror("http://elsewhere.example/debian", MIRROR.security)),
    }
    assert len(digests) == 5
    assert base.digest(MIRROR) == lab.Image("machine", ("apt", "python3")).digest(MIRROR)


def test_an_image_has_updates_and_security_fixes_and_forgets_the_cache():
    image = lab.Image("machine", ("python3", "apt"))
    command = lab.mmdebstrap_command(image, MIRROR, "/target", "/script", lab.apt_proxy(SETTINGS))
    start = command.index("trixie")
    assert command[start : start + 5] == [
        "trixie",
        "/target",
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/security trixie-security main",
    ]
    assert "--include=apt,python3" in command
    assert any(word.startswith("--setup-hook=") and "10.213.0.1:3142" in word for word in command)
    assert '--customize-hook=rm -f "$1/etc/apt/apt.conf.d/80lab-cache"' in command
    assert not any("80lab-cache" in word for word in lab.mmdebstrap_command(image, MIRROR, "/target", "/script"))


def test_only_a_bootable_image_is_prepared_to_boot():
    assert "systemd-networkd" in lab.Image("machine", ()).script
    assert "systemd-networkd" not in lab.Image("postgresql", (), bootable=False).script


# --- processes


def test_a_machine_is_started_on_the_bridge_with_its_own_options():
    declared = {"name": "m1.example", "address": "10.213.0.9", "options": ["--bind=/dev/fuse"]}
    (wanted,) = lab.parse_machines([declared], SETTINGS)
    command = lab.nspawn_command(wanted, "/root-of-machine", SETTINGS)
    assert command[0] == "systemd-nspawn"
    assert {"--boot", "--keep-unit", "--network-bridge=bouwsteen0", "--hostname=m1.example"} <= set(command)
    assert f"--machine={wanted.short}" in command
    assert command[-1] == "--bind=/dev/fuse"


def test_a_daemon_sees_its_directories_and_nothing_else_of_the_host():
    command = lab.service_command("/tree", "x", ["daemon", "-f"], {"/a": "/lab", "/b": "ro:/etc/b"}, user="nobody")
    assert command[-3:] == ["--", "daemon", "-f"]
    assert [word for word in command if word.startswith("--bind")] == ["--bind=/a:/lab", "--bind-ro=/b:/etc/b"]
    assert "--user=nobody" in command
    assert "--read-only" in command


def test_the_start_time_is_found_behind_any_process_name():
    fields = ["S", *(str(number) for number in range(4, 40))]
    assert lab.stat_start_time("7 (a) b (c) d) " + " ".join(fields)) == 22


def test_the_cache_goes_through_the_proxy_of_the_host():
    assert "Proxy=http://proxy.example:8080" in lab.cache_command(SETTINGS, "http://proxy.example:8080")
    assert not any(word.startswith("Proxy=") for word in lab.cache_command(SETTINGS))
    assert "BindAddress=10.213.0.1" in lab.cache_command(SETTINGS)


# --- names


def test_the_zone_has_machines_and_fragments():
    text = lab.zone_text(
        [machine()], {"b.zone": "b A 10.213.0.2", "a.zone": "$ORIGIN x.example.\na A 10.213.0.3\n"}, SETTINGS
    )
    assert "m1.bouwsteen.example. A 10.213.0.10\nm1.bouwsteen.example. AAAA fd00:b5::10\n" in text
    assert text.index("a.zone") < text.index("b.zone")
    # A fragment's origin and lifetime end with it.
    assert "; fragment b.zone\n$ORIGIN example.\n$TTL 60\nb A 10.213.0.2\n" in text
    assert "ns A 10.213.0.1\n" in text


def test_reverse_zones_have_a_pointer_for_each_machine():
    zones = lab.reverse_zone_texts([machine()], SETTINGS)
    assert list(zones) == ["0.213.10.in-addr.arpa", "0.0.0.0.0.0.0.0.5.b.0.0.0.0.d.f.ip6.arpa"]
    assert "10.0.213.10.in-addr.arpa. PTR m1.bouwsteen.example.\n" in zones["0.213.10.in-addr.arpa"]
    assert "1.0.213.10.in-addr.arpa. PTR ns.example.\n" in zones["0.213.10.in-addr.arpa"]
    assert "PTR m1.bouwsteen.example." in zones["0.0.0.0.0.0.0.0.5.b.0.0.0.0.d.f.ip6.arpa"]


def test_errors_of_the_zone_name_fragment_and_line():
    zone = lab.zone_text(
        [machine()], {"good.zone": "g A 10.213.0.2\n", "bad.zone": "x A 10.213.0.3\ny A 999\n"}, SETTINGS
    )
    number = zone.splitlines().index("y A 999") + 1
    said = (
        f"error: [example.] zone loader, error in zone, file '/lab/x', line {number} (invalid IPv4 address)\n"
        "error: [example.] zone loader, failed to load zone, file '/lab/x', 1 errors\n"
    )
    assert lab.zone_problems(said, zone) == ["bad.zone line 2: invalid IPv4 address"]


def test_errors_of_the_zone_name_the_labs_own_part_the_record_and_strangers():
    zone = lab.zone_text([], {}, SETTINGS)
    said = "error: [example.] zone loader, error in zone, file '/lab/x', line 2 (bad)\n"
    assert lab.zone_problems(said, zone) == ["the lab's own records line 2: bad"]
    said = "[x.example.] another record exists beside CNAME\n\nError summary:\n\t1\tanother record\n"
    assert lab.zone_problems(said, zone) == ["x.example.: another record exists beside CNAME"]
    said = "warning: [example.] zone loader, ignoring out-of-zone data, owner x.nl.\nNo error found\n"
    assert lab.zone_problems(said, zone) == ["x.nl.: not in the zone example"]
    assert lab.zone_problems("No error found\n", zone) == []
    assert lab.zone_problems("error: who knows\n", zone, failed=True) == ["error: who knows"]


def test_names_of_the_host_are_passed_on_without_its_loopback():
    loopback = "127.0.0.1 localhost vm\n::1 localhost\n"
    text = loopback + "192.0.2.7 mirror.example mirror # cache\n\n# x\nnonsense x\nfe80::1%eth0 z\n"
    assert lab.hosts_for_machines(text) == "192.0.2.7 mirror.example mirror\nfe80::1%eth0 z\n"


def test_resolvers_of_the_host_are_passed_on_without_the_lab_itself():
    text = "search example\nnameserver 10.213.0.1\n nameserver 192.0.2.53\n#nameserver 192.0.2.54\noptions edns0\n"
    assert lab.resolvers_for_machines(text, SETTINGS) == "nameserver 192.0.2.53\n"


def test_dnsmasq_asks_the_authority_for_the_labs_zones_and_caches_nothing():
    text = lab.dnsmasq_config(SETTINGS)
    assert "server=/example/10.213.0.1#5300\n" in text
    assert "server=/0.213.10.in-addr.arpa/10.213.0.1#5300\n" in text
    assert "cache-size=0\n" in text
    assert "listen-address=10.213.0.1\nlisten-address=fd00:b5::1\n" in text


def test_knot_signs_the_labs_zone_only():
    text = lab.knot_config(SETTINGS)
    assert text.count("dnssec-signing: on") == 1
    assert "  - domain: example.\n    file: example.zone\n    dnssec-signing: on\n" in text
    assert "listen: [ 10.213.0.1@5300 ]" in text
