/** What is asked for cannot be drawn; the message is a sentence for the annotator. */
export class Refusal extends Error {}
