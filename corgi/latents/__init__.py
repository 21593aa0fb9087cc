"""The autoencoder stage: latent spaces fitted, trained or read, and the latents of every kept picture."""
