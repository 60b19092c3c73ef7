"""Does choosing save labels? The same candidates are asked about by every strategy, and what is gained is compared.

May use everything; nothing else may use it.
"""
