"""The headline: what ``heldout fit`` gives beside other trainers' defaults and a tuned baseline."""
