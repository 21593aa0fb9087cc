"""Registered domains without a network, and the cap on their share."""

import socket

import numpy as np
import pytest

from corgi.curation.domains import capped, registered_domains
from corgi.settings.errors import InputError


def test_a_domain_is_what_somebody_registered_and_no_name_is_looked_up(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    urls = [
        "https://cdn1.images.example.co.uk/a.png",
        "http://example.co.uk",
        "http://user.github.io/x",
        "http://192.0.2.7/x.png",
        "http://localhost:8000/x",
        "not a url",
        None,
        "http://[broken",
    ]
    found = registered_domains(urls)
    assert found[:3] == ["example.co.uk", "example.co.uk", "github.io"]
    assert found[3:5] == ["192.0.2.7", "localhost"]
    assert found[5:] == [None, None, None]


@pytest.mark.law
@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 1.0])
def test_no_domain_keeps_more_than_its_share_and_the_cap_is_the_largest(share: float) -> None:
    generator = np.random.default_rng(0)
    domain = np.concatenate([np.zeros(300, int), generator.integers(1, 60, 700)])
    domain[[5, 900]] = -1
    rank = generator.permutation(1000)
    gone, cap = capped(domain, rank, share)
    kept = np.bincount(domain[~gone & (domain >= 0)])
    assert kept.max() <= share * (~gone).sum()
    assert not gone[domain < 0].any()
    larger = np.minimum(np.bincount(domain[domain >= 0]), cap + 1)
    assert not gone.any() or larger.max() > share * (larger.sum() + 2)
    mine = np.flatnonzero(domain == 0)
    assert rank[mine[~gone[mine]]].max(initial=-1) < rank[mine[gone[mine]]].min(initial=1000)


def test_too_few_domains_for_the_share_is_one_line() -> None:
    with pytest.raises(InputError, match="3 registered domains") as caught:
        capped(np.array([0, 1, 2, 2]), np.arange(4), 0.1)
    assert "\n" not in str(caught.value)
