"""What torch computes, as mathematics: tensors of expressions, comparisons, and expectations."""
