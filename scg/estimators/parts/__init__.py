"""Parts that estimators are made of: baselines, memories, control variates."""
