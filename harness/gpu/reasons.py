"""Why a GPU's clocks were held down: the bits of the field `throttle` in words, harmful ones told from harmless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["hardware", "thermal", "power", "harmless"]


@dataclass(frozen=True, slots=True)
class ThrottleReason:
    """`kind` says how grave it is: `hardware` cuts the clock to half or less at once, `harmless` is as it was asked."""

    bit: int
    name: str
    kind: Kind
    words: str


REASONS: tuple[ThrottleReason, ...] = (
    ThrottleReason(0x1, "idle", "harmless", "nothing runs"),
    ThrottleReason(0x2, "clocks_setting", "harmless", "the clocks were set by the user"),
    ThrottleReason(0x4, "sw_power_cap", "power", "the power limit is reached"),
    ThrottleReason(0x8, "hw_slowdown", "hardware", "the hardware slows itself down: heat, or its power supply"),
    ThrottleReason(0x10, "sync_boost", "harmless", "another GPU of its group holds it back"),
    ThrottleReason(0x20, "sw_thermal", "thermal", "the driver holds the temperature down"),
    ThrottleReason(0x40, "hw_thermal", "hardware", "the hardware slows itself down: too hot"),
    ThrottleReason(0x80, "hw_power_brake", "hardware", "the power supply asked for less"),
    ThrottleReason(0x100, "display_clock", "harmless", "a display's clock"),
    ThrottleReason(0x200, "board_limit", "power", "the board's own limit is reached"),
    ThrottleReason(0x400, "reliability", "harmless", "the highest voltage that lasts is reached"),
)
"""NVML's clocks event reasons; a dcgm-exporter has the same bits."""


def mask(*kinds: Kind) -> int:
    return sum(reason.bit for reason in REASONS if reason.kind in kinds)


HARMFUL = mask("hardware", "thermal", "power")


def reasons(bits: float) -> tuple[ThrottleReason, ...]:
    """Those that a reading of `throttle` holds."""
    return tuple(reason for reason in REASONS if int(bits) & reason.bit)


def harmful(bits: float) -> bool:
    """Whether clocks were lower than they would be on a cool machine with power to spare."""
    return bool(int(bits) & HARMFUL)
