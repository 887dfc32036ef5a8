"""Names to proxies."""

import pytest

from edgewright.core.errors import BadInput
from edgewright.proxy.resolve import proxies, resolve_proxies


def test_in_the_order_asked_each_once():
    assert [proxy.name for proxy in resolve_proxies(["zico", "params", "zico"])] == ["zico", "params"]


def test_unknown_name_lists_the_choices():
    with pytest.raises(BadInput, match=r"unknown proxy 'zyco'; choose from .*zico.*params"):
        resolve_proxies(["zyco"])


def test_every_proxy_is_listed_under_its_name():
    assert all(name == proxy.name for name, proxy in proxies().items())
