"""What a training reads: order, rows, batches and noise."""
