"""The two streams: feature extractors that turn every candidate into two vectors (latents).

The supervised stream (E_s in Lin et al. 2020) sees the mask that S predicted, the unsupervised stream (E_u) the raw
pixels of the image. Both see the aligned patches of ``candidates.patches``.

- ``config``: settings, without torch; ``published``: settings read from a configuration of the published code.
- ``stream``: the contract of a stream; ``vae`` and ``simclr``: its two implementations.
- ``contrast``: the contrastive loss of ``simclr`` and ``active_clustering``.
- ``draw``, ``fit``, ``encode``: training patches; training and storing a stream; patches to latents.
- ``active_clustering``: fine-tuning of the unsupervised stream on answers.
- ``encoders``: settings of an encoder that the user brings as an ONNX file; ``external``: the encoder itself.
- ``side_by_side``: the VAE of masks and S's own features as one stream.
- ``given``: latents that the user computed; ``pictures``: pictures of what a stream has learned, for the report.
"""
