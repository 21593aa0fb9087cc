"""The autoencoder stage: latent spaces that are fitted, trained or loaded, and the latents of every kept picture."""
