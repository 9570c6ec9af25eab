"""What a trained student is worth elsewhere: the linear probe on frozen features."""
