"""The table of devices: what its figures must hold, users' own files, and how a GPU's product name finds its entry."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from servemark.harness.errors import BadInput
from servemark.harness.hardware.device import TERA, Gpu
from servemark.harness.hardware.devices import gpu, gpus, recognise
from servemark.harness.listing import GPU_HEAD, gpu_row, gpu_table
from tests.commands import bench

ROOT = Path(__file__).parent.parent
TABLE = tomllib.loads((ROOT / "harness" / "hardware" / "devices.toml").read_text())["gpus"]
PAGE = (ROOT / "docs" / "devices.md").read_text()
MIB = 1 << 20

OWN = """\
[gpus.my-card]
title = "My card"
bandwidth_gb_s = 1000
memory_gb = 24
source = "its box"
retrieved = "2026-11-21"
nvml_names = ["NVIDIA My Card"]

[gpus.my-card.peaks]
bf16 = { dense_tflops = 100, sparse_tflops = 200 }
"""


# --- what the figures hold


@pytest.mark.parametrize("name", TABLE)
def test_a_sparse_figure_is_twice_the_dense_one(name: str) -> None:
    """Published figures round, by 1.3 % at most so far; a sparse figure taken for the dense would be off by half."""
    for dtype, peak in TABLE[name]["peaks"].items():
        if "sparse_tflops" in peak:
            ratio = peak["sparse_tflops"] / (2 * peak["dense_tflops"])
            assert ratio == pytest.approx(1, abs=0.025), dtype


@pytest.mark.parametrize("name", TABLE)
def test_every_figure_has_a_source_and_a_date(name: str) -> None:
    entry = TABLE[name]
    assert entry["source"]
    assert re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", entry["retrieved"])
    assert ("achievable" in entry) == ("achievable_source" in entry)
    for peak in gpu(name).peaks.values():
        assert peak.source
        assert peak.retrieved
        assert peak.accumulate == ("int32" if peak.dtype == "int8" else "fp32")


@pytest.mark.parametrize(
    ("name", "bf16", "bandwidth", "memory_gb"),
    [
        ("h100-sxm", 989, 3350, 80),
        ("h100-pcie", 756, 2000, 80),
        ("h200", 989, 4800, 141),
        ("b200", 2250, 8000, 180),
        ("a100-80", 312, 2039, 80),
        ("a100-40", 312, 1555, 40),
        ("l40s", 362, 864, 48),
        ("l4", 121, 300, 24),
        ("a10", 125, 600, 24),
        ("mi300x", 1307, 5300, 192),
    ],
)
def test_the_devices_of_the_simulator_keep_their_names_and_figures(
    name: str, bf16: float, bandwidth: float, memory_gb: float
) -> None:
    device = gpu(name)
    assert (device.flops_per_s("bf16"), device.bytes_per_s) == (bf16 * 1e12, bandwidth * 1e9)
    assert device.memory_gb == memory_gb


def test_memory_is_what_the_driver_reports_where_that_is_known(tmp_path: Path) -> None:
    """An "80 GB" H100 SXM has 81,559 MiB: 85.5 GB, and what is counted with 80 is no bound."""
    assert gpu("h100-sxm").memory_bytes == 81_559 * MIB
    assert gpu("gaudi3").memory_bytes == 128e9
    file = tmp_path / "own.toml"
    file.write_text(OWN.replace("memory_gb = 24", "memory_gb = 24\nmemory_mib = 23028"))
    assert gpu("my-card", [file]).memory_bytes == 23_028 * MIB


@pytest.mark.parametrize("name", TABLE)
def test_reported_memory_is_near_the_published_one(name: str) -> None:
    """From 6 % less, where ECC takes its share, to 10 % more, where GB were GiB and more is fitted than sold."""
    if "memory_mib" in TABLE[name]:
        assert 0.94 < TABLE[name]["memory_mib"] * MIB / (TABLE[name]["memory_gb"] * 1e9) < 1.10


def test_an_h100_is_989_dense_and_not_the_sparse_figure_that_is_often_quoted() -> None:
    assert gpu("h100-sxm").flops_per_s("bf16") == 989 * TERA
    assert gpu("h100-sxm").peaks["bf16"].sparse_tflops == 1979


def test_disputed_figures_are_kept_as_ranges() -> None:
    assert gpu("b300").peaks["fp4"].disputed == (12_600, 14_000)
    low, high = gpu("b300").peaks["int8"].disputed or (0, 0)
    assert high / low == 30  # earlier tables carried the B200's figure on
    assert gpu("b200").bandwidth_disputed == (7_700, 8_000)


@pytest.mark.parametrize(
    ("name", "dtype", "computed"),
    [
        ("a100-80", "fp8", "bf16"),  # no FP8 units: weights are widened
        ("a100-80", "int8", "int8"),
        ("h100-sxm", "fp4", "fp8"),
        ("a100-80", "fp4", "bf16"),
        ("gaudi2", "int8", "bf16"),
        ("l4", "fp16", "bf16"),
        ("b200", "fp4", "fp4"),
    ],
)
def test_a_dtype_without_units_of_its_own_is_computed_at_the_next_wider(name: str, dtype: str, computed: str) -> None:
    assert gpu(name).peak(dtype).dtype == computed
    assert gpu(name).flops_per_s(dtype) == TABLE[name]["peaks"][computed]["dense_tflops"] * 1e12


def test_a_dtype_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="h100-sxm has no peak for fp64"):
        gpu("h100-sxm").flops_per_s("fp64")


# --- names


@pytest.mark.parametrize("spelt", ["H100-SXM", "h100 sxm", "h100_sxm", "NVIDIA H100 80GB HBM3"])
def test_a_name_may_be_spelt_in_other_ways(spelt: str) -> None:
    assert gpu(spelt).name == "h100-sxm"


def test_an_unknown_name_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(BadInput, match="--gpu: there is no GPU 'h100'; did you mean h100-pcie, h100-sxm, h100-nvl"):
        gpu("h100")
    with pytest.raises(BadInput, match="`bench list gpus` shows all"):
        gpu("")


# What drivers of these GPUs report, with the memory that they count.
REPORTED = [
    ("NVIDIA H100 80GB HBM3", 81_559, "h100-sxm"),
    ("NVIDIA H100 PCIe", 81_559, "h100-pcie"),
    ("NVIDIA H100 NVL", 95_830, "h100-nvl"),
    ("NVIDIA H200", 143_771, "h200"),
    ("NVIDIA H200 NVL", 143_771, "h200-nvl"),
    ("NVIDIA GH200 480GB", 97_871, "gh200-96"),
    ("NVIDIA GH200 144G HBM3e", 146_831, "gh200-144"),
    ("NVIDIA B200", 183_359, "b200"),
    ("NVIDIA B300 SXM6 AC", 275_040, "b300"),
    ("NVIDIA GB200", 189_471, "gb200"),
    ("NVIDIA GB300", 284_208, "gb300"),
    ("NVIDIA A100-SXM4-40GB", 40_960, "a100-40"),
    ("NVIDIA A100-SXM4-80GB", 81_920, "a100-80"),
    ("A100-SXM4-40GB", 40_536, "a100-40"),  # drivers before 470
    ("NVIDIA A100 80GB PCIe", 81_920, "a100-80-pcie"),
    ("NVIDIA A100-PCIE-40GB", 40_960, "a100-40-pcie"),
    ("NVIDIA L4", 23_034, "l4"),
    ("NVIDIA L40S", 46_068, "l40s"),
    ("NVIDIA A10", 23_028, "a10"),
    ("NVIDIA A10G", 23_028, "a10g"),
    ("Tesla V100-SXM2-16GB", 16_384, "v100-sxm-16"),
    ("Tesla V100-SXM2-32GB", 32_768, "v100-sxm-32"),
    ("Tesla V100-PCIE-32GB", 32_768, "v100-pcie-32"),
    ("Tesla T4", 15_360, "t4"),
    ("NVIDIA GeForce RTX 4090", 24_564, "rtx-4090"),
    ("NVIDIA GeForce RTX 5090", 32_607, "rtx-5090"),
    ("NVIDIA RTX 6000 Ada Generation", 49_140, "rtx-6000-ada"),
    ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97_887, "rtx-pro-6000"),
    ("AMD Instinct MI300X OAM", 196_592, "mi300x"),
]


@pytest.mark.parametrize(("product", "mib", "name"), REPORTED)
def test_the_table_has_the_memory_that_drivers_report(product: str, mib: int, name: str) -> None:
    if product.startswith(("NVIDIA", "Tesla", "AMD")):  # older drivers kept more back
        assert gpu(name).memory_mib == mib


@pytest.mark.parametrize(("product", "mib", "name"), REPORTED)
def test_a_product_name_is_recognised(product: str, mib: int, name: str) -> None:
    for spelling in (product, product.replace(" ", "-")):  # Kubernetes labels have dashes
        with_memory, without = recognise(spelling, mib * MIB), recognise(spelling)
        assert with_memory is not None
        assert (with_memory.name, without and without.name) == (name, name)


@pytest.mark.parametrize(
    ("product", "mib"),
    [
        ("NVIDIA L40", 46_068),  # an L4 it is not, nor an L40S
        ("NVIDIA A40", 46_068),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16_376),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97_887),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9_984),
        ("NVIDIA H100 80GB HBM3", 9_984),  # a slice under its parent's name
        ("AMD Instinct MI250X", 65_536),  # one of its two dies
        ("", 1),
    ],
)
def test_what_is_not_in_the_table_is_not_guessed(product: str, mib: int) -> None:
    assert recognise(product, mib * MIB) is None


def test_devices_that_share_a_name_are_told_apart_by_memory(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    double = OWN.replace("my-card", "my-double").replace("memory_gb = 24", "memory_gb = 48")
    file.write_text(f"{OWN}\n{double}")
    assert _name(recognise("My Card", round(24e9), [file])) == "my-card"
    assert _name(recognise("My Card", round(48e9 * 1.07), [file])) == "my-double"
    assert recognise("My Card", round(96e9), [file]) is None
    assert recognise("My Card", None, [file]) is None
    file.write_text(f"{OWN}\n{OWN.replace('my-card', 'my-twin')}")
    assert recognise("My Card", round(24e9), [file]) is None  # nothing tells these two apart


def _name(device: Gpu | None) -> str | None:
    return None if device is None else device.name


# --- own files


def test_an_own_file_adds_devices_and_goes_over_the_packaged_ones(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    assert gpu("my-card", [file]).flops_per_s("fp8") == 100e12
    assert gpu("my-card", [file]).peaks["bf16"].source == "its box"
    with pytest.raises(BadInput):
        gpu("my-card")
    file.write_text(OWN.replace("my-card", "h100-sxm").replace("NVIDIA My Card", "NVIDIA H100 80GB HBM3"))
    assert gpu("h100-sxm", [file]).bandwidth_gb_s == 1000
    found = recognise("NVIDIA H100 80GB HBM3", None, [file])
    assert found is not None
    assert found.title == "My card"
    assert len(gpus([file])) == len(gpus())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('title = "My card"\n', ""), "1: gpus.my-card.title: is missing; add `title = ...` (its name for people)"),
        (("memory_gb = 24", 'memory_gb = "24"'), "4: gpus.my-card.memory_gb: needs a number, not '24'"),
        (("nvml_names", "nvml_name"), "7: gpus.my-card.nvml_name: there is no such key; did you mean `nvml_names`?"),
        (("memory_gb = 24", "memory_gb = -24"), "4: gpus.my-card.memory_gb: must be above 0, not -24"),
        (("memory_gb = 24", "memory_gb = inf"), "4: gpus.my-card.memory_gb: must be a finite number, not inf"),
        (("bf16 =", "fp64 ="), "10: gpus.my-card.peaks.fp64"),
        (("bf16 =", "fp8 ="), "9: gpus.my-card.peaks: bf16 is missing, to which dtypes without a peak fall back"),
        (("sparse_tflops = 200", "sparse_tflops = 100"), "10: gpus.my-card.peaks.bf16: 100 is not twice 100"),
        (("sparse_tflops = 200", "disputed = [1, 2]"), "10: gpus.my-card.peaks.bf16: 100 is not in the disputed range"),
        (("[gpus.my-card.peaks]", "[gpus.my-card.peaks"), "9: this is no valid TOML"),
        (("memory_gb = 24", 'note = """\n[gpus.my-card]\ntitle = 3\n"""'), "1: gpus.my-card.memory_gb: is missing"),
    ],
)
def test_a_mistake_in_an_own_file_is_named_with_its_line(
    tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN.replace(*change))
    with pytest.raises(BadInput) as caught:
        gpus([file])
    assert str(caught.value).startswith(f"{file}:{sentence}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_own_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "own.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInput, match=r"own.toml: the file of devices cannot be read"):
        gpus([file])


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f"a = {'[' * 100_000}")
    with pytest.raises(BadInput, match=r"own.toml:1: "):
        gpus([file])


# --- where they are shown


def test_bench_list_gpus_shows_every_device_in_columns(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    said = bench("list", "gpus", "--gpu-file", str(file))
    assert said.code == 0
    lines = said.out.splitlines()
    assert {line.split()[0] for line in lines[1 : len(TABLE) + 1]} == set(TABLE)
    assert "H100 SXM" in said.out
    assert any(line.startswith("my-card ") for line in lines)
    assert len({len(line) for line in lines[: len(TABLE) + 2]}) == 1
    assert max(map(len, lines)) <= 120


def test_a_file_of_devices_has_no_place_in_the_other_list(tmp_path: Path) -> None:
    said = bench("list", "--gpu-file", str(tmp_path / "own.toml"))
    assert said.code == 2
    assert "--gpu-file: goes with `bench list gpus`" in said.err


def test_a_name_of_a_file_steers_no_terminal(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN.replace('"My card"', '"My\\u001b[31m\\ncard"'))
    (line,) = (line for line in gpu_table([file]) if line.startswith("my-card"))
    assert "\x1b" not in line
    assert "\n" not in line


def test_the_table_in_the_docs_is_the_table() -> None:
    head = "|".join(["", *(f" {cell or 'device'} " for cell in GPU_HEAD), ""])
    rows = [f"| {' | '.join(gpu_row(device))} |" for device in gpus()]
    assert "\n".join([head, "|---|---|" + "---:|" * (len(GPU_HEAD) - 2), *rows]) in PAGE


def test_every_note_and_range_is_in_the_docs() -> None:
    for device in gpus():
        assert device.note in PAGE
        for low, high in filter(None, [device.bandwidth_disputed, *(peak.disputed for peak in device.peaks.values())]):
            assert f"{low:,g} to {high:,g}" in PAGE, device.name


def test_the_own_file_in_the_docs_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(\[gpus.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "own.toml"
    file.write_text(text)
    assert len(gpus([file])) == len(gpus()) + 1
