/** The version of every part: agent, controller and CLI are released together. */
export const version = "0.1.0";
