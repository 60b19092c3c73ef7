"""The base model S: a U-Net that predicts, for every voxel of an image, the probability of the task's channels.

- ``config``: settings, without torch.
- ``network``, ``heads``: the U-Net; the meaning of its logits and the losses.
- ``lessons``: training crops from labels and answers; ``augment``, ``warp`` and ``imaging``: their augmentation.
- ``train``, ``predict``: training and storing S; its prediction for a volume, in the windows of ``blending``.
- ``card``, ``apply``, ``onnx_export``, ``onnx_model``: the finished model, used without its project and without torch.
- ``features``: features of candidates from S's decoder.
- ``describe``: size of a training before it starts.
"""
