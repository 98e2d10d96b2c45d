"""The masked transformer over the high-resolution grid."""
