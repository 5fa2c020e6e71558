"""Train, continue, compare and evaluate a Dueling DQN on Super Mario Bros."""
