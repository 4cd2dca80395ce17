"""What answers requests: ft's own engine on a loaded transformers model."""

from ft_core.models.quantization import quiet_bitsandbytes

quiet_bitsandbytes()  # peft, which the engines import, imports it wherever it is installed
