"""The address: a server that other machines can reach has a token; a taken port is one line."""

import socket

import pytest

from corgi.serving.address import Serving, bound, rules_of
from corgi.settings.errors import InputError, SettingsError


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.test"])
@pytest.mark.parametrize("token", [None, "", "short"])
def test_other_machines_need_a_token(host, token):
    with pytest.raises(SettingsError, match="set CORGI_TOKEN"):
        rules_of(Serving("runs/a", host=host, token=token))
    rules = rules_of(Serving("runs/a", host=host, token="x" * 16))
    assert (rules.token, rules.hosts, rules.rate.per_minute) == ("x" * 16, None, 30)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_asks_for_no_token_and_knows_its_names(host):
    rules = rules_of(Serving("runs/a", host=host))
    assert rules.token is None
    assert rules.hosts is not None
    assert host in rules.hosts
    assert rules_of(Serving("runs/a", token="x" * 16)).token == "x" * 16


def test_a_taken_port_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as holder, pytest.raises(InputError, match="another port"):
        bound(Serving("runs/a", port=holder.getsockname()[1]))
