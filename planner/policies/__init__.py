"""Ways to make an answer, ours and others'. Each begins an answer in a simulated world and records its outcome."""
