"""What of a model on disk makes an export impossible, found before any work."""

from __future__ import annotations

from ft_core.errors import ModelError
from ft_core.prepare import Prepared
from ft_quant.export_arguments import ConvertArguments, ProofArguments, QuantizeArguments
from ft_quant.plan import Plan


def check_source(
    prepared: Prepared,
    plan: Plan,
    quantize: QuantizeArguments,
    convert: ConvertArguments,
    proof: ProofArguments,
) -> None:
    """Refuse what this model or this environment can't do.

    Raises:
        ModelError: the model is quantized already, or its architecture has no writer.
        DependencyError: a package is missing.
        UsageError: ``--quant_python`` is no interpreter.
    """
    from ft_quant.dtypes import read_config
    from ft_quant.gguf.families import check_family
    from ft_quant.gguf.write import check_gguf_installed
    from ft_quant.methods.availability import check_installed

    config = read_config(prepared.directory)
    stored = config.get("quantization_config")
    if stored and set(plan.targets) - {"peft"}:
        method = stored.get("quant_method", "unknown") if isinstance(stored, dict) else "unknown"
        raise ModelError(
            f"{prepared.name} is quantized already ({method}), and what is exported is made of plain weights; give the "
            "unquantized model with --model_id_or_path"
        )
    if quantize.quant_bits:
        check_installed(quantize.quant_method, python=quantize.quant_python, verify=proof.verify)
    if convert.to_gguf is not None and convert.llama_cpp_dir is None:
        check_family(config)
        check_gguf_installed(convert.to_gguf)
