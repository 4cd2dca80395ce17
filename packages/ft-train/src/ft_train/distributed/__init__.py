"""Training on several processes: torchrun starts them; DDP, DeepSpeed or FSDP2 divide the work.

Nothing here moves tensors by itself but torch and DeepSpeed: these modules read settings, start the process
group, and gather what a checkpoint needs.
"""
