"""Who answers: alias tables, string similarity, OLPEAT, a round's checkpoint alone, with contexts, or fused."""
