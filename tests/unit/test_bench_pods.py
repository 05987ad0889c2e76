"""The simulation of pods, against what queueing theory says."""

import pytest

from bench.pods import Load, pods_needed, simulate


def test_constant_service_waits_as_theory_says() -> None:
    """One server, random arrivals, constant service at half load: the mean wait is half a service (M/D/1)."""
    outlook = simulate(Load(5.0, model_seconds=0.0), 1, [0.1], turns=40_000)
    assert outlook.busy == pytest.approx(0.5, abs=0.02)
    assert outlook.wait_p50 < 0.05 < outlook.wait_p95 < 0.4


def test_an_idle_pod_makes_nobody_wait() -> None:
    """At a hundredth of the load hardly any turn meets another."""
    assert simulate(Load(0.1), 1, [0.1], turns=2000).wait_p95 == 0.0


def test_twice_the_load_needs_twice_the_pods() -> None:
    """Pods share nothing, so what two carry, four carry twice; and five steps need five times as many."""
    one = pods_needed(Load(100.0), [0.05], most_wait_p95=0.5).pods
    assert pods_needed(Load(200.0), [0.05], most_wait_p95=0.5).pods == pytest.approx(2 * one, abs=1)
    five = pods_needed(Load(100.0, steps=5), [0.05], most_wait_p95=0.5).pods
    assert 4 * one <= five <= 6 * one


def test_more_pods_never_wait_longer() -> None:
    """The wait shrinks with every pod."""
    waits = [simulate(Load(30.0), pods, [0.03, 0.06]).wait_p95 for pods in (2, 3, 4, 6)]
    assert waits == sorted(waits, reverse=True)


def test_a_load_beyond_all_bounds_is_said_to_be_so() -> None:
    """Two hundred pods are the end of the simulation."""
    with pytest.raises(ValueError, match="more than 200 pods"):
        pods_needed(Load(100_000.0), [0.1], most_wait_p95=0.5)
