"""Hours and dollars of a stage on its machines, its bottleneck, and what to add first."""

from collections.abc import Mapping
from dataclasses import dataclass

from corgi.budget.machines import Machines
from corgi.budget.rates import Interval, Rates, largest
from corgi.budget.work import Work

REMEDIES = {
    "network": "more CPU nodes, each brings its own network",
    "CPU": "more nodes or more CPUs for each worker",
    "GPU": "more GPU workers",
    "storage": "faster shared storage, or more nodes that write to it",
    "requests in flight": "a larger download.connections or download.num_actors",
}


@dataclass(frozen=True)
class Estimate:
    """Time, bottleneck and cost of one stage."""

    hours: Interval
    bottleneck: str
    dollars: Interval | None


def estimate(work: Work, machines: Machines, in_flight: float, rates: Rates) -> Estimate | None:
    """Return a stage's time, which is that of its slowest resource; `in_flight` is the number of its simultaneous requests.

    None if nothing is known about the stage's needs on these machines.
    """
    seconds = bounds(work, machines, in_flight, rates)
    if not seconds:
        return None
    bottleneck = max(seconds, key=lambda name: seconds[name].high)
    hours = largest(list(seconds.values())) / 3600
    price = machines.dollars_per_hour
    return Estimate(hours, bottleneck, None if price is None else hours * price)


def gpu_waits(seconds: Mapping[str, Interval]) -> Interval | None:
    """Return the share of the time that a GPU waits for data prepared by CPUs; None if the time of one of them is unknown."""
    if "CPU" not in seconds or "GPU" not in seconds:
        return None
    ratio = seconds["GPU"] / seconds["CPU"]
    return Interval(max(0.0, 1 - ratio.high), max(0.0, 1 - ratio.low))


def bounds(work: Work, machines: Machines, in_flight: float, rates: Rates) -> dict[str, Interval]:
    """Return the seconds that the work would take on each resource if it were the only limit."""
    found = {}
    if machines.cpus and work.cpu_s.high:
        found["CPU"] = work.cpu_s / machines.cpus
    if work.received_bytes.high:
        found["network"] = work.received_bytes * 8.0 / (rates["node_bandwidth"] * max(1, machines.num_nodes))
    if work.written_bytes.high:
        found["storage"] = (
            work.written_bytes * 8.0 / (rates["storage_bandwidth"] * max(1, machines.num_nodes))
        )
    if work.waited_s.high and in_flight:
        found["requests in flight"] = work.waited_s / in_flight
    if work.flops.high and machines.peak_flops:
        found["GPU"] = work.flops / (rates["gpu_share_of_peak"] * machines.peak_flops)
    return found
