"""Registered domains without a network, and the cap on their share."""

import socket

import numpy as np
import pytest

from corgi.curation.domains import DomainSizes, largest_cap, registered_domains
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


def sizes_of(domain: np.ndarray) -> DomainSizes:
    counts = np.bincount(domain[domain >= 0])
    return DomainSizes(*np.unique(counts[counts > 0], return_counts=True), int((domain < 0).sum()))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 1.0])
def test_law_the_cap_keeps_each_domain_within_its_share_and_is_the_largest_that_does(share: float) -> None:
    generator = np.random.default_rng(0)
    domain = np.concatenate([np.zeros(300, int), generator.integers(1, 60, 700)])
    domain[[5, 900]] = -1
    counts = np.bincount(domain[domain >= 0])
    cap = largest_cap(sizes_of(domain), share)
    kept = np.minimum(counts, cap)
    assert kept.max() <= share * (kept.sum() + 2)
    larger = np.minimum(counts, cap + 1)
    assert cap >= counts.max() or larger.max() > share * (larger.sum() + 2)


def test_rows_without_a_domain_alone_need_no_cap() -> None:
    assert largest_cap(sizes_of(np.array([-1, -1])), 0.1) == 1


def test_too_few_domains_for_the_share_is_one_line() -> None:
    with pytest.raises(InputError, match="3 registered domains") as caught:
        largest_cap(sizes_of(np.array([0, 1, 2, 2])), 0.1)
    assert "\n" not in str(caught.value)
