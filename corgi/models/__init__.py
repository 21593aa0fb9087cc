"""Networks: the prior transformer and the decoders. Pure modules, tensors in and out."""
