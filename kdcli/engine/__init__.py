"""From losses to a trained student: objective, update, the one training loop, checkpoints."""
