"""Learning from rewards of answers that the model makes while it is trained: grpo and rloo, on TRL's trainers."""
