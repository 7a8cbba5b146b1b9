"""A benchmark report with two systems, a floor, three repeats and every field filled, for the tests beside it."""

from bench.results import Knee, Latency, Measurement, Report

COSTS = {"floor": 3.0, "aiosfu": 4.0, "naive": 60.0}
"""CPU microseconds per packet at the first repeat; each further repeat costs a tenth of that more."""


def latency(scale: float, count: int = 100_000) -> Latency:
    return Latency(100 * scale, 180 * scale, 400 * scale, 900 * scale, 2_500 * scale, count)


def measurement(system: str, n: int, repeat: int, **changes: object) -> Measurement:
    cost = COSTS[system] * (1 + repeat / 10)
    fields: dict[str, object] = {
        "system": system,
        "scenario": "webinar",
        "n": n,
        "repeat": repeat,
        "seconds": 4.0,
        "load": 1.0,
        "offered": 240_000,
        "delivered": 239_880,
        "cpu_us_per_packet": cost,
        "softirq_us_per_packet": 0.5,
        "server_busy": min(1.0, 60_000 * cost / 1e6),
        "generator_busy": 0.4,
        "latency": latency(cost * n / 50),
        "memory_per_subscriber": 65_536.0,
        "joins_ms": tuple(20.0 + cost * k for k in range(n // 10)),
        "drops": {"RcvbufErrors": 40 * repeat, "SndbufErrors": 0},
    }
    return Measurement(**{**fields, **changes})  # type: ignore[arg-type]


def report(systems: tuple[str, ...] = ("floor", "aiosfu", "naive"), **changes: object) -> Report:
    runs = [measurement(system, n, repeat) for n in (50, 300) for repeat in range(3) for system in systems]
    busy = measurement(systems[-1], 1000, 0, generator_busy=0.97, notes=("kernel <dropped> [some]",))
    fields: dict[str, object] = {
        "machine": "Test CPU, 2 CPUs, Linux 6",
        "date": "2026-07-01T12:00:00+00:00",
        "command": "python -m bench run --systems 'a & b'",
        "versions": {"python": "3.11.7", "libsrtp": "2.7.0"},
        "profile": "SRTP_AEAD_AES_128_GCM",
        "baseline": latency(0.2),
        "ceiling": 310_000.0,
        "measurements": (*runs, busy),
        "knees": tuple(
            Knee(system, "webinar", 300, 240_000 / COSTS[system], 0.95, system == "floor") for system in systems
        ),
    }
    return Report(**{**fields, **changes})  # type: ignore[arg-type]
