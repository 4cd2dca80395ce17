"""Learning from answers that the model makes while it is trained, on TRL's trainers: grpo, rloo and gkd."""
