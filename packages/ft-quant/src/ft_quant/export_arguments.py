"""Arguments of exporting: quantizing, converting, proving and publishing."""

from __future__ import annotations

from typing import ClassVar, Literal

from ft_core.arguments.quantized import Bnb4bitArguments
from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import UsageError
from ft_quant.methods import METHODS, QuantMethod, check_bits

GgufType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]


class QuantizeArguments(Bnb4bitArguments):
    """Weights in few bits on disk."""

    title: ClassVar[str] = "quantizing"

    quant_method: QuantMethod = "awq"
    """Who quantizes: awq (4 bit) and gptq (2, 3, 4, 8) look at calibration rows; bnb (4, 8), rtn (4, 8) and fp8 (8) at the weights alone."""

    quant_bits: Literal[0, 2, 3, 4, 8] = 0
    """Bits of a weight; 0 doesn't quantize."""

    quant_n_samples: int = flag(256, ge=1)
    """Calibration texts of quant_seqlen tokens each; fewer are taken where the rows don't fill them."""

    quant_seqlen: int = flag(2048, ge=8)
    """Tokens of a calibration text; rows are joined and cut into texts of this length."""

    quant_batch_size: int = flag(1, ge=1)
    """Calibration texts that go through the model at once."""

    quant_device_map: str = "cpu"
    """Where the weights are kept while they are quantized: cpu, auto, or a device such as cuda:0; awq and gptq take layer after layer to an accelerator where there is one."""

    quant_output_dir: str | None = None
    """Where the quantized model goes; none takes {model_type}-{quant_method}-int{quant_bits} here, or CHECKPOINT-{quant_method}-int{quant_bits} beside the checkpoint."""

    quant_group_size: Literal[0, 16, 32, 64, 128] = 0
    """Weights that share a scale in awq, gptq and rtn; 0 takes the largest up to 128 that divides every layer."""

    quant_python: str | None = None
    """Python of another environment that quantizes and loads the result, where a method's packages can't be installed beside ft's; none takes this one."""

    quantization_bit: int = flag(0, aliases=("quantization_type",))
    """Bits of a weight while a model is loaded, which export doesn't do: use quant_bits."""

    hqq_axis: Literal[0, 1] = 0
    """Axis along which hqq groups weights while a model is loaded; has no effect on exporting."""

    hqq_dynamic_config_path: str | None = None
    """Settings of hqq for loading a model; has no effect on exporting."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse bits that the method doesn't have, and settings of other methods."""
        if self.quantization_bit:
            raise UsageError(
                f"--quantization_bit {self.quantization_bit} quantizes a model while it is loaded; to write a quantized "
                f"model give --quant_bits {self.quantization_bit}"
            )
        if not self.quant_bits:
            alone = sorted(name for name in given if name.startswith("quant_"))
            if alone and alone != ["quant_bits"]:
                raise UsageError(
                    f"--{alone[0]} has no effect without --quant_bits: give the bits of a weight "
                    f"({METHODS[self.quant_method].bits_text} for {self.quant_method}), or leave it out"
                )
            return
        check_bits(self.quant_method, self.quant_bits)
        method = METHODS[self.quant_method]
        if self.quant_group_size and not method.groups:
            raise UsageError(
                f"--quant_group_size is a setting of awq, gptq and rtn; leave it out with --quant_method {self.quant_method}"
            )
        if self.quant_python and not method.foreign:
            raise UsageError(
                f"--quant_python: --quant_method {self.quant_method} needs no other environment; leave it out"
            )

    def without_effect(self) -> frozenset[str]:
        """Return the flags of other methods, and all of them where nothing is quantized."""
        known = METHODS[self.quant_method]
        calibration = {"quant_n_samples", "quant_seqlen", "quant_batch_size"}
        of_bnb = {name for name in type(self).model_fields if name.startswith("bnb_4bit_")}
        idle = {"hqq_axis", "hqq_dynamic_config_path"}
        if not (self.quant_method == "bnb" and self.quant_bits == 4):
            idle |= of_bnb
        if not (known.calibrated and self.quant_bits):
            idle |= calibration
        if self.quant_method in ("rtn", "fp8"):
            idle.add("quant_device_map")
        return frozenset(idle)


class ConvertArguments(ArgumentGroup):
    """Other forms of a model."""

    title: ClassVar[str] = "converting"

    to_peft_format: bool = False
    """Write an adapter of --tuner_backend swift (and of the older toolkit) as one of peft, as CHECKPOINT-peft."""

    to_gguf: GgufType | None = None
    """Write a GGUF file for llama.cpp and Ollama, with weights of this type."""

    gguf_output_dir: str | None = None
    """Where the GGUF file goes; none takes {model_type}-gguf-{to_gguf} here, or CHECKPOINT-gguf-{to_gguf} beside the checkpoint."""

    gguf_adapter: bool = False
    """Write the adapter alone to GGUF, for llama.cpp's --lora, instead of merging it into the model."""

    llama_cpp_dir: str | None = None
    """Checkout of llama.cpp whose converter writes the GGUF file of an architecture that ft has no writer for."""

    to_ollama: bool = False
    """Write a Modelfile for `ollama create`, with the chat format, its stops and the sampling given here."""

    ollama_output_dir: str | None = None
    """Where the Modelfile goes; none takes {model_type}-ollama here."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse directories of what isn't made."""
        for name in ("gguf_output_dir", "llama_cpp_dir", "gguf_adapter"):
            if name in given and self.to_gguf is None:
                raise UsageError(
                    f"--{name} has no effect without --to_gguf; add it, or leave --{name} out"
                )
        if self.gguf_adapter and self.to_gguf not in (None, "f32", "f16"):
            raise UsageError(
                f"--gguf_adapter true --to_gguf {self.to_gguf}: the matrices of an adapter are f32 or f16; give one of them"
            )
        if self.gguf_adapter and (self.to_ollama or self.llama_cpp_dir is not None):
            raise UsageError(
                "--gguf_adapter true goes with neither --to_ollama nor --llama_cpp_dir; export the whole model for them"
            )
        if "ollama_output_dir" in given and not self.to_ollama:
            raise UsageError(
                "--ollama_output_dir has no effect without --to_ollama true; add it, or leave it out"
            )


class PublishArguments(ArgumentGroup):
    """Where what was made is pushed to."""

    title: ClassVar[str] = "hub"

    push_to_hub: bool = False
    """Push what this command made to ModelScope, or with USE_HF=1 to Hugging Face; without anything made, the checkpoint."""

    hub_model_id: str | None = None
    """Repository to push to, as owner/name or name; it is made if there is none."""

    hub_token: str | None = flag(None, secret=True)
    """Token that may write there; none takes MODELSCOPE_API_TOKEN, for Hugging Face HF_TOKEN."""

    hub_private_repo: bool = False
    """Make the repository private if it is made."""

    commit_message: str = "update files"
    """Message of the commit."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse pushing nowhere, and flags of pushing where nothing is pushed."""
        if self.push_to_hub and self.hub_model_id is None:
            raise UsageError(
                "--push_to_hub true needs --hub_model_id with the repository, as owner/name"
            )
        alone = {"hub_model_id", "hub_private_repo", "commit_message"} & given
        if alone and not self.push_to_hub:
            raise UsageError(
                f"--{min(alone)} has no effect without --push_to_hub true; add it, or leave --{min(alone)} out"
            )


class ProofArguments(ArgumentGroup):
    """How a result is checked before it gets its name."""

    title: ClassVar[str] = "verification"

    verify: bool = True
    """Load each result in a fresh process and compare perplexity and answers with what it was made from."""

    force: bool = False
    """Keep a result also where the verification finds it broken."""

    compat: Literal["v5", "v4"] = "v5"
    """Write configurations for transformers 5, or also readable by transformers 4."""
