"""Proxies by name, for text that comes from people and plans."""

from collections.abc import Iterable

from edgewright.core.errors import BadInput
from edgewright.proxy.az_nas import az_expressivity, az_progressivity, az_trainability
from edgewright.proxy.base import Proxy
from edgewright.proxy.epe_nas import epe_nas
from edgewright.proxy.gradsign import gradsign
from edgewright.proxy.grasp import grasp
from edgewright.proxy.jacob_cov import jacob_cov
from edgewright.proxy.knas import knas
from edgewright.proxy.meco import meco, meco_opt
from edgewright.proxy.naswot import naswot
from edgewright.proxy.nn_degree import degree, mass
from edgewright.proxy.saliency import fisher, grad_norm, plain, snip
from edgewright.proxy.size import capacity, live_macs, log_sizes, macs, params
from edgewright.proxy.swap import swap
from edgewright.proxy.synflow import synflow
from edgewright.proxy.te_nas import linear_regions, ntk_condition
from edgewright.proxy.zen import zen
from edgewright.proxy.zico import zico


def proxies() -> dict[str, Proxy]:
    """Every proxy by name."""
    every = (
        *(capacity(), zico(), zico(compat=True), params(), macs(), live_macs(), log_sizes()),
        *(grad_norm(), snip(), grasp(), plain(), fisher(), fisher(compat=True), synflow(), synflow(compat=True)),
        *(jacob_cov(), naswot()),
        *(zen(), zen(compat=True), meco(), meco(compat=True), swap(), gradsign(), gradsign(compat=True), epe_nas()),
        *(knas(), knas(compat=True), meco_opt(), meco_opt(compat=True)),
        *(ntk_condition(), ntk_condition(compat=True), linear_regions()),
        *(az_expressivity(), az_progressivity(), az_trainability(), degree(), mass()),
    )
    return {proxy.name: proxy for proxy in every}


def resolve_proxy(name: str) -> Proxy:
    """The proxy called `name`; an unknown name lists the choices."""
    known = proxies()
    if name not in known:
        raise BadInput(f"unknown proxy '{name}'; choose from {', '.join(known)}")
    return known[name]


def resolve_proxies(names: Iterable[str]) -> tuple[Proxy, ...]:
    """The proxies called `names`, in that order, each once."""
    return tuple(resolve_proxy(name) for name in dict.fromkeys(names))
