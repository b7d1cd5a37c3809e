/**
 * Error text when the peer closes the socket that takes the place of a TAP (sys/frame-socket.ts). For some
 * front ends this is a normal end.
 */
export const FRAME_PEER_GONE = 'whoever sent frames has closed the socket';
