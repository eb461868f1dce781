"""The network of the example: it predicts the binding of five factors and the accessibility of 200 bases."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import gelu


class BindingNet(nn.Module):
    """A small convolutional network with dropout after every stage.

    Parameters
    ----------
    targets : int
        Number of outputs.
    motifs, contexts, hidden : int
        Width of the first convolution, of the second, and of the dense layer.
    dropout : float
        Probability with which a unit is dropped.
    """

    def __init__(
        self, targets: int = 6, motifs: int = 40, contexts: int = 40, hidden: int = 64, dropout: float = 0.05
    ) -> None:
        super().__init__()
        self.scan = nn.Conv1d(4, motifs, kernel_size=15)
        self.pool_scan = nn.MaxPool1d(4)
        self.drop_scan = nn.Dropout(dropout)
        self.context = nn.Conv1d(motifs, contexts, kernel_size=3)
        self.pool_context = nn.MaxPool1d(44)
        self.drop_context = nn.Dropout(dropout)
        self.dense = nn.Linear(contexts, hidden)
        self.drop_dense = nn.Dropout(dropout)
        self.predict = nn.Linear(hidden, targets)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Predict log enrichments.

        Parameters
        ----------
        sequence : torch.Tensor, shape=(batch, 4, 200)
            One-hot sequences, bases in the order A, C, G, T.

        Returns
        -------
        torch.Tensor, shape=(batch, targets)
            Natural logarithm of the signal over the assay's background.
        """
        sites = self.drop_scan(self.pool_scan(gelu(self.scan(sequence))))
        regions = self.drop_context(self.pool_context(gelu(self.context(sites))))
        return self.predict(self.drop_dense(gelu(self.dense(regions.flatten(1)))))
