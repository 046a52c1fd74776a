"""The networks: LSTI and what it is trained with."""
