//! Building blocks for provider integrations of the Cluster Stack Operator.
