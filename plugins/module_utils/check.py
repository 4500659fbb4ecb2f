# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold between customers, and between resellers: uniqueness, the reseller's limits,
mail that goes in circles.

Errors go to the document that they concern. Between resellers an error is neutral: it never says whose a domain, number
or device is, nor through whose addresses a circle runs, for its reader may be the other's competitor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.bouwsteen.hosting.plugins.module_utils import brand, limits, placement
from ansible_collections.bouwsteen.hosting.plugins.module_utils.contract import Contract
from ansible_collections.bouwsteen.hosting.plugins.module_utils.customer import (
    Customer,
    Forward,
    Pool,
    not_available,
    over_allocated,
    over_limit,
)
from ansible_collections.bouwsteen.hosting.plugins.module_utils.findings import Finding, nearby

MOST_STEPS = 10
# Every domain takes mail for these: RFC 5321 4.5.1, RFC 2142.
ALWAYS_THERE = ("postmaster", "abuse")

type Graph = Mapping[str, Sequence[str]]


def within_reseller(contract: Contract, customers: Sequence[Customer]) -> None:
    """Everything across the customers of one reseller."""
    _unique_names(customers)
    for kind in ("domains", "numbers", "devices"):
        _unique(kind, customers)
    _forwards_arrive(customers)
    for name, ceiling in contract.limits.items():
        in_use = contract.in_use.get((limits.RESELLER, "", name), 0)
        pool = Pool(name, ceiling, f"reseller {contract.name}", contract, ("reseller_limits", name), in_use)
        if limits.LIMITS[name].unit == limits.COUNT:
            over_limit(pool, [(customer, path) for customer in customers for path in customer.counted.get(name, ())])
        elif ceiling["basis"] == limits.ALLOCATED:
            over_allocated(
                pool,
                ((customer, *entry) for customer in customers for entry in customer.quotas.get(name, ())),
            )


def _unique_names(customers: Iterable[Customer]) -> None:
    first: dict[str, Customer] = {}
    for customer in customers:
        other = first.setdefault(customer.name, customer)
        if customer.name and other is not customer:
            customer.source.report(
                ("customer",),
                f"is already the customer of {nearby(other.source.path)}",
                "a name that no other file has",
            )


_WORDS = {"domains": ("domain", "domain"), "numbers": ("number", "number"), "devices": ("device", "hardware address")}


def _unique(kind: str, customers: Iterable[Customer]) -> None:
    """A domain, number or device is one customer's; here both are one reseller's own, so the other one is named."""
    word, allowed = _WORDS[kind]
    first: dict[str, Customer] = {}
    for customer in customers:
        for value, path in getattr(customer, kind).items():
            other = first.setdefault(value, customer)
            if other is not customer:
                customer.source.report(
                    path, f"is already a {word} of customer {other.name} ({nearby(other.source.path)})",
                    f"a {allowed} that no other customer has",
                )  # fmt: skip


def between_resellers(site: Mapping[str, tuple[Contract, Sequence[Customer]]]) -> None:
    """Everything across the resellers of a site."""
    _own_domains([contract for contract, _ in site.values()])
    _folders([contract for contract, _ in site.values()])
    _brands([contract for contract, _ in site.values()])
    for kind in ("domains", "numbers", "devices"):
        _claimed(kind, site)
    for contract, customers in site.values():
        others = {other.domain for other, _ in site.values() if other is not contract and other.domain}
        for customer in customers:
            for domain, path in customer.domains.items():
                if not _below(domain, contract.domain) and any(_below(domain, other) for other in others):
                    customer.source.report(path, *not_available("domain", domain))


def _below(domain: str, top: str) -> bool:
    return bool(top) and (domain == top or domain.endswith(f".{top}"))


def _own_domains(contracts: Sequence[Contract]) -> None:
    """The resellers' own domains; contracts are the provider's, so these errors may say it all."""
    for contract in contracts:
        for other in contracts:
            if other is not contract and contract.domain and _below(contract.domain, other.domain):
                relation = "is" if contract.domain == other.domain else "is below"
                contract.report(
                    ("reseller_domain",), f"{relation} the domain of reseller {other.name}", "a domain of his own"
                )


def _folders(contracts: Sequence[Contract]) -> None:
    first: dict[str, Contract] = {}
    for contract in contracts:
        if contract.folder and (other := first.setdefault(contract.folder, contract)) is not contract:
            contract.report(("reseller_customers",), f"is the folder of reseller {other.name}", "a folder of his own")


def _brands(contracts: Sequence[Contract]) -> None:
    """Nobody's people can take another reseller's pages for their own: that is how passwords are stolen."""
    for at, contract in enumerate(contracts):
        for other in contracts[:at]:
            same = [
                brand.look(str(one.data.get("reseller_title", one.name)), one.logo.digest if one.logo else "")
                for one in (contract, other)
            ]
            if same[0] == same[1] and brand.distance(contract.colour, other.colour) < brand.ALIKE:
                contract.report(
                    ("reseller_brand",), f"looks like reseller {other.name}: title and logo are the same, and colours "
                    f"{contract.colour} and {other.colour} are hard to tell apart",
                    "another title, logo or colour", None,
                )  # fmt: skip


def machines(groups: Mapping[str, Iterable[str]]) -> list[Finding]:
    """Machines that have a function without what it works through."""
    return [
        Finding(f"group {function}", 0, machine, "", f"is not in group {other}, which {function} works through",
                f"machines that are in {' and '.join(placement.TOGETHER[function])} as well")
        for machine, function, other in placement.incomplete(groups)
    ]  # fmt: skip


def _claimed(kind: str, site: Mapping[str, tuple[Contract, Sequence[Customer]]]) -> None:
    word, _ = _WORDS[kind]
    holders: dict[str, set[str]] = {}
    for name, (_, customers) in site.items():
        for customer in customers:
            for value in getattr(customer, kind):
                holders.setdefault(value, set()).add(name)
    taken = {value for value, resellers in holders.items() if len(resellers) > 1}
    if not taken:
        return
    for _, customers in site.values():
        for customer in customers:
            for value, path in getattr(customer, kind).items():
                if value in taken:
                    customer.source.report(path, *not_available(word, value))


# --- mail that is sent on ---------------------------------------------------------------------------------------------


def _forwards_arrive(customers: Sequence[Customer]) -> None:
    """A forward to an address of the reseller's own customers goes to one that exists."""
    holders = {domain: customer for customer in customers for domain in customer.domains}
    for customer in customers:
        for forward in customer.forwards:
            local, _, domain = forward.end.rpartition("@")
            holder = holders.get(domain)
            if "forward" not in forward.path or holder is None or holder.unclear & {"users", "groups", "domains"}:
                continue
            address = f"{local.partition('+')[0]}@{holder.alias_domains.get(domain, domain)}"
            if address not in holder.addresses and local not in ALWAYS_THERE:
                hint = customer.source.hint(address, holder.addresses)
                problem = f"is no address of customer {holder.name}{hint}"
                customer.source.report(forward.path, problem, "an address that exists, or one elsewhere")


def circles(parties: Iterable[Sequence[Customer]]) -> None:
    """Reports every circle that mail would run in through aliases, lists and forwards, once for each reseller in it.

    `parties`: the customers of each reseller. Of a circle only the reader's own addresses are named.
    """
    parties = list(parties)
    aliases = {
        domain: target
        for customers in parties
        for customer in customers
        for domain, target in customer.alias_domains.items()
    }
    graph: dict[str, list[str]] = {}
    written: dict[str, list[tuple[int, Customer, Forward]]] = {}
    for party, customers in enumerate(parties):
        for customer in customers:
            for forward in customer.forwards:
                graph.setdefault(forward.start, []).append(arrives(forward.end, aliases))
                if "forward" in forward.path:
                    written.setdefault(forward.start, []).append((party, customer, forward))
    found = found_circles(graph, written)
    holders = _holders(parties) if found else {}
    for circle in found:
        told: set[int] = set()
        for start, end in zip(circle, [*circle[1:], circle[0]], strict=True):
            for party, customer, forward in written.get(start, ()):
                if party not in told and arrives(forward.end, aliases) == end:
                    told.add(party)
                    at = circle.index(start)
                    steps = [*circle[at:], *circle[:at], start]
                    known = [step if holders.get(step) == party else "an address elsewhere" for step in steps]
                    customer.source.report(
                        forward.path,
                        f"sends mail in a circle: {_way(known)}",
                        "an address that does not lead back here",
                    )


def arrives(address: str, aliases: Mapping[str, str]) -> str:
    """The address under which this site knows `address`: an alias domain is the one behind it, details are left out."""
    local, _, domain = address.rpartition("@")
    return f"{local.partition('+')[0]}@{aliases.get(domain, domain)}"


def _holders(parties: Sequence[Sequence[Customer]]) -> dict[str, int]:
    """Whose each address is."""
    return {
        address: party
        for party, customers in enumerate(parties)
        for customer in customers
        for address in customer.addresses
    }


def _way(steps: list[str]) -> str:
    """Steps of a circle for people; of a long one the beginning and the end."""
    if len(steps) > MOST_STEPS:
        steps = [*steps[: MOST_STEPS - 2], f"{len(steps) - MOST_STEPS + 1} more", steps[-1]]
    return " -> ".join(steps)


def found_circles(graph: Graph, starts: Iterable[str]) -> list[list[str]]:
    """One circle, as short as can be, for each set of addresses that all lead to each other, in order of travel.

    Sets are found as strongly connected components (Tarjan, without recursion: lists may be long chains).
    """
    result = []
    for component in _components(graph, starts):
        members = set(component)
        start = min(members)
        if len(members) > 1 or start in graph.get(start, ()):
            result.append(_shortest(graph, start, members))
    return result


def _shortest(graph: Graph, start: str, members: set[str]) -> list[str]:
    """The shortest way from `start` back to itself within `members`."""
    came: dict[str, str] = {}
    front = [start]
    while front:
        following = []
        for here in front:
            for there in graph.get(here, ()):
                if there == start:
                    way = [here]
                    while way[-1] != start:
                        way.append(came[way[-1]])
                    return way[::-1]
                if there in members and there not in came:
                    came[there] = here
                    following.append(there)
        front = following
    return []


def _components(graph: Graph, starts: Iterable[str]) -> Iterable[list[str]]:
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    for root in starts:
        if root in index:
            continue
        work = [(root, iter(graph.get(root, ())))]
        index[root] = low[root] = len(index)
        path.append(root)
        on_path.add(root)
        while work:
            here, following = work[-1]
            for there in following:
                if there not in index:
                    index[there] = low[there] = len(index)
                    path.append(there)
                    on_path.add(there)
                    work.append((there, iter(graph.get(there, ()))))
                    break
                if there in on_path:
                    low[here] = min(low[here], index[there])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[here])
                if low[here] == index[here]:
                    component: list[str] = []
                    while not component or component[-1] != here:
                        component.append(path.pop())
                    on_path.difference_update(component)
                    yield component
