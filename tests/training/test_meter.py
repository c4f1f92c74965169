"""What a step costs, by hand; the ceilings that follow; rates from steps and seconds."""

import dataclasses

import pytest

from mel.encoder.config import EncoderConfig
from mel.shards.batches import Layout
from mel.training.meter import Peak, Speed, device_peak, step_bytes, step_flops
from mel.types import MelError

TINY = EncoderConfig(vocab_size=10, hidden_size=2, num_layers=2, num_heads=1, ffn_size=8, max_positions=4)
LAYOUT = Layout(widths=(2, 4), texts=(3, 1), candidates=5)  # 10 tokens, 4 texts
TINY_PARAMETERS = (10 + 4 + 2 + 2) * 2 + 2 * (4 * (4 + 2) + (16 + 8) + (16 + 2) + 4 * 2) + (4 + 2)


def test_flops_by_hand():
    first = 10 * 2 * (4 * 2 * 2 + 2 * 2 * 8) + (3 * 2 * 2 + 1 * 4 * 4) * 2 * 2 * 2
    last = 10 * 2 * (2 * 2 * 2) + 4 * 2 * (2 * 2 * 2 + 2 * 2 * 8) + (3 * 2 + 1 * 4) * 2 * 2 * 2
    pooler, scores = 4 * 2 * 2 * 2, 6 * 2 * 5 * 2
    assert step_flops(TINY, LAYOUT, mentions=6) == 3 * (first + last + pooler + scores)


def test_a_mean_needs_every_position_of_the_last_layer():
    mean = dataclasses.replace(TINY, pooling="mean")
    first = 10 * 2 * (4 * 2 * 2 + 2 * 2 * 8) + (3 * 2 * 2 + 1 * 4 * 4) * 2 * 2 * 2
    assert step_flops(mean, LAYOUT, mentions=6) == 3 * (2 * first + 6 * 2 * 5 * 2)


def test_of_a_large_encoder_flops_are_six_times_parameters_times_tokens():
    config = EncoderConfig(vocab_size=2, hidden_size=1024, num_layers=24, num_heads=16, ffn_size=4096, pooling="mean")
    tokens, in_layers = 8 * 1000, 24 * 12 * 1024**2
    assert step_flops(config, Layout((8,), (1000,), 1), 1) == pytest.approx(6 * in_layers * tokens, rel=0.002)


def test_bytes_by_hand():
    size, ffn, tokens, texts = 2, 8, 10, 4
    first = tokens * (2 * (18 * size + 4 * ffn) + 32 * size + 7 * ffn)
    last = tokens * (2 * 5 + 10) * size + texts * (2 * (13 * size + 4 * ffn) + 22 * size + 7 * ffn)
    values = first + last + tokens * (2 * 2 + 4) * size
    rest = 4 * 6 * 6 * 5 + 32 * TINY_PARAMETERS
    assert step_bytes(TINY, LAYOUT, 6, "bfloat16") == 2 * values + rest
    assert step_bytes(TINY, LAYOUT, 6, "float32") == 4 * values + rest
    assert step_bytes(TINY, LAYOUT, 6, "float32", devices=3) == 4 * values + rest + 2 * 32 * TINY_PARAMETERS


def test_what_is_kept_is_not_moved_once_more():
    moved = {kept: step_bytes(TINY, LAYOUT, 6, "bfloat16", kept) for kept in ("states", "products", "all")}
    first, last = 10 * (18 * 2 + 4 * 8), 10 * 5 * 2 + 4 * (13 * 2 + 4 * 8)
    assert moved["states"] - moved["all"] == 2 * (first + last + 10 * 2 * 2)
    first, last = 10 * (10 * 2 + 2 * 8), 10 * 2 * 2 + 4 * (8 * 2 + 2 * 8)
    assert moved["products"] - moved["all"] == 2 * (first + last)


@pytest.mark.parametrize("size, on_h100, on_a100", [(128, 0.14, 0.27), (192, 0.20, 0.40), (256, 0.27, 0.52)])
def test_bytes_bound_mfu_at_64_tokens_where_the_analysis_of_these_encoders_says(size, on_h100, on_a100):
    config = EncoderConfig(vocab_size=2, hidden_size=size, num_layers=24, num_heads=8, ffn_size=4 * size)
    layout = Layout((64,), (65536,), 32768)
    flops, moved = step_flops(config, layout, 32768), step_bytes(config, layout, 32768, "bfloat16")
    for kind, ceiling in (("NVIDIA H100 80GB HBM3", on_h100), ("NVIDIA A100-SXM4-80GB", on_a100)):
        peak = device_peak(kind, "bfloat16")
        assert flops / moved * peak.gbytes_per_s / 1000 / peak.tflops == pytest.approx(ceiling, rel=0.08)


@pytest.mark.parametrize(
    "kind, half, single, gbytes",
    [
        ("NVIDIA H100 80GB HBM3", 989, 495, 3350),
        ("NVIDIA H100 PCIe", 756, 378, 2000),
        ("NVIDIA H200", 989, 495, 4800),
        ("NVIDIA A100-SXM4-40GB", 312, 156, 1555),
        ("NVIDIA A100-SXM4-80GB", 312, 156, 2039),
        ("NVIDIA A100 80GB PCIe", 312, 156, 1935),
        ("NVIDIA A10G", 70, 35, 600),
        ("NVIDIA L4", 121, 60, 300),
        ("Tesla T4", 65, 8.1, 320),
        ("Tesla V100-SXM2-16GB", 125, 15.7, 900),
        ("NVIDIA GeForce RTX 4090", 165, 82.6, 1008),
    ],
)
def test_published_peaks_by_the_name_that_the_device_has(kind, half, single, gbytes):
    assert device_peak(kind, "bfloat16") == Peak(half, gbytes)
    assert device_peak(kind, "float32") == Peak(single, gbytes)


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA L40S", "NVIDIA GH200 480GB", "NVIDIA GeForce RTX 4090 Laptop GPU"])
def test_the_peak_of_another_device_is_unknown_unless_told(kind):
    assert device_peak(kind, "bfloat16") == Peak()
    assert device_peak(kind, "bfloat16", 0.2, 30) == Peak(0.2, 30)


def test_what_is_told_comes_before_what_is_published():
    assert device_peak("NVIDIA L4", "bfloat16", tflops=100) == Peak(100, 300)
    assert device_peak("NVIDIA L4", "bfloat16", gbytes_per_s=250) == Peak(121, 250)
    with pytest.raises(MelError, match="A device of -1 TFLOP/s"):
        device_peak("cpu", "float32", tflops=-1)


def test_rates_by_hand():
    speed = Speed(TINY, LAYOUT, 6, "float32", Peak(tflops=1e-9, gbytes_per_s=1e-4), devices=2)
    assert speed.rates(steps=4, seconds=8, real_tokens=30) == pytest.approx(
        {
            "mentions_per_second": 3,
            "tokens_per_second": 3.75,
            "padding_share": 0.25,
            "mfu": step_flops(TINY, LAYOUT, 6) / 2 / 2000,
            "byte_roofline_share": step_bytes(TINY, LAYOUT, 6, "float32", devices=2) / 2 / 2e5,
        }
    )


def test_what_is_not_known_is_left_out():
    assert Speed(TINY, LAYOUT, 6, "float32").rates(4, 8, 0) == {"mentions_per_second": 3}
    speed = Speed(TINY, LAYOUT, 6, "float32", Peak(gbytes_per_s=1))
    assert set(speed.rates(4, 8, 30)) == {
        "mentions_per_second", "tokens_per_second", "padding_share", "byte_roofline_share",
    }  # fmt: skip
