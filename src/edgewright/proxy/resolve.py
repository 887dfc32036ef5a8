"""Proxies by name, for text that comes from people and plans."""

from collections.abc import Iterable

from edgewright.core.errors import BadInput
from edgewright.proxy.base import Proxy
from edgewright.proxy.scores.az_nas import az_expressivity, az_progressivity, az_trainability
from edgewright.proxy.scores.epe_nas import epe_nas
from edgewright.proxy.scores.gradsign import gradsign
from edgewright.proxy.scores.grasp import grasp
from edgewright.proxy.scores.h_score import h_score, h_score_shrunk
from edgewright.proxy.scores.jacob_cov import jacob_cov
from edgewright.proxy.scores.knas import knas
from edgewright.proxy.scores.knn import knn
from edgewright.proxy.scores.leep import leep
from edgewright.proxy.scores.linear_probe import linear_fit, linear_probe
from edgewright.proxy.scores.logme import logme
from edgewright.proxy.scores.meco import meco, meco_opt
from edgewright.proxy.scores.naswot import naswot
from edgewright.proxy.scores.nce import nce
from edgewright.proxy.scores.nn_degree import degree, mass
from edgewright.proxy.scores.saliency import fisher, grad_norm, plain, snip
from edgewright.proxy.scores.size import capacity, live_macs, log_sizes, macs, params
from edgewright.proxy.scores.swap import swap
from edgewright.proxy.scores.synflow import synflow
from edgewright.proxy.scores.te_nas import linear_regions, ntk_condition
from edgewright.proxy.scores.transrate import transrate
from edgewright.proxy.scores.zen import zen
from edgewright.proxy.scores.zico import zico


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
        *(logme(), linear_probe(), linear_fit(), h_score(), h_score_shrunk(), leep(), nce(), knn(), transrate()),
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
