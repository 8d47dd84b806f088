"""What a GPU costs for an hour: a flag, a file, or an own machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.errors import BadInput
from servemark.harness.hardware.deployed import deployed
from servemark.harness.hardware.price import OnPremise, Price
from servemark.harness.hardware.prices import kwh_price, price_for
from servemark.harness.hardware.section import HardwareSection
from servemark.harness.hardware.told import Told

PAGE = (Path(__file__).parent.parent / "docs" / "devices.md").read_text()

FILE = """\
version: 1
gpus:
  h100-sxm: 2.5
  L4: {usd_per_hour: 1}
  l40s:
    on_premise: {gpu_usd: 8760, years: 1}
  my-card:
    on_premise: {gpu_usd: 8760, years: 1, power_w: 2000, usd_per_kwh: 0.5, pue: 1.5}
usd_per_kwh: 0.1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(FILE)
    return path


def usd(price: Price | None) -> float:
    assert price is not None
    return price.usd_per_gpu_hour


def test_the_flag_goes_before_the_file(file: Path) -> None:
    assert price_for("h100-sxm", 3.0, file) == Price(3.0, f"--gpu-price, which goes before {file}")
    assert price_for(None, 3.0, None) == Price(3.0, "--gpu-price")
    assert price_for("h100-sxm", None, None) is None


@pytest.mark.parametrize("nonsense", [0.0, -1.0, float("inf"), float("nan")])
def test_a_price_that_is_none_is_refused(nonsense: float) -> None:
    with pytest.raises(BadInput, match="dollars an hour is no price; give a number above 0"):
        price_for(None, nonsense, None)


def test_a_file_has_a_price_for_each_kind_of_gpu(file: Path) -> None:
    assert price_for("h100-sxm", None, file) == Price(2.5, f"{file}:3")
    assert price_for("l4", None, file) == Price(1.0, f"{file}:4")
    assert price_for("b200", None, file) is None
    assert price_for(None, None, file) is None
    assert kwh_price(file) == 0.1
    assert kwh_price(None) is None


def test_an_own_gpu_draws_what_the_table_says_unless_the_file_knows_better(file: Path) -> None:
    """8,760 dollars over a year of 8,760 hours are one an hour; an L40S draws 350 W."""
    assert usd(price_for("l40s", None, file)) == pytest.approx(1 + 0.35 * 0.1)
    assert usd(price_for("my-card", None, file)) == pytest.approx(1 + 2 * 1.5 * 0.5)
    found = price_for("l40s", None, file)
    assert found is not None
    assert found.source == f"{file}:5, on premise: $1 bought, $0.035 energy, $0 other"


def test_a_file_may_be_toml(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text("[gpus]\nh100-sxm = 2\n\n[gpus.l4.on_premise]\ngpu_usd = 8760\nyears = 1\nusd_per_kwh = 0\n")
    assert price_for("h100-sxm", None, path) == Price(2.0, f"{path}:2")
    assert usd(price_for("l4", None, path)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gpus:\n  l4: cheap", "2: gpus.l4: needs dollars an hour, or on_premise below it, not 'cheap'"),
        ("gpus:\n  l4: -1", "2: gpus.l4: must be above 0, not -1"),
        ("gpus:\n  l4: true", "2: gpus.l4: needs dollars an hour"),
        ("gpus:\n  l4: {}", "2: gpus.l4: give it either usd_per_hour or on_premise"),
        ("gpus:\n  l4: {usd_per_hour: 1, on_premise: {gpu_usd: 1}}", "2: gpus.l4: give it either"),
        (
            "gpus:\n  l4:\n    on_premise: {gpu_usd: 1}",
            "2: gpus.l4.on_premise: electricity has no price; add usd_per_kwh",
        ),
        (
            "usd_per_kwh: 0\ngpus:\n  a10g: {on_premise: {gpu_usd: 1}}",
            "3: gpus.a10g.on_premise: what it draws is not kn",
        ),
        (
            "gpus:\n  l4:\n    on_premise:\n      yaers: 3\n      gpu_usd: 1",
            "4: gpus.l4.on_premise.yaers: there is no such",
        ),
        (
            "gpus:\n  l4:\n    on_premise: {gpu_usd: 1, utilisation: 60}",
            "3: gpus.l4.on_premise.utilisation: must be at mo",
        ),
        ("gpus:\n  l4:\n    on_premise: {gpu_usd: 1, pue: 0.9}", "3: gpus.l4.on_premise.pue: must be at least 1"),
        ("prices: {}", "1: gpus: is missing"),
        ("version: 2\ngpus: {}", "1: version: this servemark reads version 1, not 2"),
        ("gpus: [", "1: this is no valid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        price_for("h100-sxm", None, path)  # another GPU's: the file is read as a whole, before any load
    assert str(caught.value).startswith(f"{path}:{sentence}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("h100", "did you mean h100-pcie, h100-sxm, h100-nvl?"),
        ("h100-smx", "did you mean h100-sxm"),
        ("our-own", "`bench list gpus` shows all, --gpu-file adds more"),
    ],
)
def test_an_entry_that_prices_no_gpu_is_a_mistake(tmp_path: Path, name: str, said: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"version: 1\ngpus:\n  {name}: 2.5\n")
    with pytest.raises(BadInput) as caught:
        price_for("l4", None, path, ())
    assert str(caught.value).startswith(f"{path}:3: gpus.{name}: there is no such GPU; {said}")
    with pytest.raises(BadInput, match="there is no such GPU"):
        deployed(HardwareSection(gpu="l4", gpu_price=1.0, prices=str(path)), Told())


def test_a_gpu_of_the_users_own_has_a_price_too(tmp_path: Path) -> None:
    own, path = tmp_path / "own.toml", tmp_path / "p.yaml"
    facts = 'title = "ours"\nbandwidth_gb_s = 1\nmemory_gb = 1\npower_w = 500\nsource = "s"\nretrieved = "2026-11-21"\n'
    own.write_text(f"[gpus.our-own]\n{facts}[gpus.our-own.peaks]\nbf16 = {{ dense_tflops = 1 }}\n")
    path.write_text("gpus:\n  Our Own:\n    on_premise: {gpu_usd: 8760, years: 1, usd_per_kwh: 0.2}\n")
    assert usd(price_for("our-own", None, path, (own,))) == pytest.approx(1 + 0.5 * 0.2)
    section = HardwareSection(gpu="our-own", gpu_file=(str(own),), prices=str(path))
    assert usd(deployed(section, Told()).price) == pytest.approx(1.1)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no\.yaml: the file of prices cannot be read \(No such file or directory\)"):
        price_for(None, None, tmp_path / "no.yaml")


def test_the_file_and_its_price_in_the_docs_are_right(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(version.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    hours = 8_760 * 0.6
    parts = (25_000 + 10_000) / 4 / hours, 2_000 / hours, 1.1 * 1.3 * 0.12
    assert usd(price_for("mi300x", None, path)) == pytest.approx(sum(parts))
    machine, rest, power = (f"${part:.2f}" for part in parts)
    assert f"{machine} for the machine, {rest} for the rest and {power} for its power: ${sum(parts):.2f}" in PAGE


# --- on-premise arithmetic

MONEY = st.floats(0, 1e6)
OWN = st.builds(
    OnPremise,
    gpu_usd=MONEY,
    usd_per_kwh=st.floats(0, 2),
    server_usd_per_gpu=MONEY,
    years=st.floats(0.5, 20),
    utilisation=st.floats(0.01, 1),
    pue=st.floats(1, 3),
    other_usd_per_gpu_year=MONEY,
)


@given(own=OWN, power_w=st.floats(1, 2_000))
def test_hours_in_use_pay_for_all_that_was_spent(own: OnPremise, power_w: float) -> None:
    """Price times all hours of use is purchase, yearly costs and the energy of those hours."""
    used = 8_760 * own.years * own.utilisation
    spent = own.gpu_usd + own.server_usd_per_gpu + own.years * own.other_usd_per_gpu_year
    energy = power_w * used / 1000 * own.pue * own.usd_per_kwh
    assert own.price(power_w).usd_per_gpu_hour * used == pytest.approx(spent + energy)


def test_half_the_use_doubles_what_the_machine_costs_and_not_its_energy() -> None:
    full, half = (OnPremise(8_760, 1.0, years=1, utilisation=share).price(1_000) for share in (1.0, 0.5))
    assert full.usd_per_gpu_hour == pytest.approx(1 + 1)
    assert half.usd_per_gpu_hour == pytest.approx(2 + 1)
