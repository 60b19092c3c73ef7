"""The contrastive loss shared by self-supervised learning (``simclr``) and by ``active_clustering``.

Knows torch and nothing else.
"""

from __future__ import annotations

import torch


def contrastive_loss(latent_BD: torch.Tensor, label_B: torch.Tensor, temperature: float) -> torch.Tensor:  # noqa: N803
    """Supervised contrastive loss (Khosla 2020, eq. 2): rows of the same label attract, rows of others repel.

        mean over i of -1/|P(i)| * sum over p in P(i) of log( exp(z_i.z_p / t) / sum_{a != i} exp(z_i.z_a / t) )

    z are the rows scaled to unit length, P(i) the other rows with the label of i; rows with an empty P(i) are left out
    of the mean. Active clustering uses the answers as labels. If each label belongs to two views of one patch, this is
    the normalised temperature-scaled cross-entropy of SimCLR (Chen 2020, eq. 1).

    Args:
        latent_BD: float, B rows of features; scaled to unit length here.
        label_B: integer.
        temperature: t > 0.

    Returns:
        Scalar; 0 if no two rows share a label.
    """
    z = torch.nn.functional.normalize(latent_BD, dim=1)
    similarity = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_share = similarity - torch.logsumexp(similarity.masked_fill(itself, -torch.inf), dim=1, keepdim=True)
    positive = (label_B[:, None] == label_B[None, :]) & ~itself
    count = positive.sum(1)
    anchors = count > 0
    if not bool(anchors.any()):
        return latent_BD.sum() * 0
    return -((log_share * positive).sum(1)[anchors] / count[anchors]).mean()
