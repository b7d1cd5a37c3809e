/** Why an engine ends whose frames came over a socket (sys/frame-socket.ts): nothing went wrong. */
export const FRAME_PEER_GONE = 'whoever sent frames has closed the socket';
