"""Train, continue, compare and evaluate a Dueling DQN on Super Mario Bros."""

__version__ = "1.0.0"
