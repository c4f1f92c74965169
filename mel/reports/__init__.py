"""What is shown: reports, their page and plots, comparisons, TREC files, published figures."""
