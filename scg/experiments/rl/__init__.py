"""Control of environments, and a bandit: what control variates of the action are worth."""
