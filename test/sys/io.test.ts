// @vitest: beside
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { describe, expect, it } from 'vitest';
import {
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  Errno,
  F_GETFD,
  FD_CLOEXEC,
  FIONREAD,
  O_CLOEXEC,
  O_NONBLOCK,
  SPLICE_F_NONBLOCK,
} from '../../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollDel, epollMod, epollWait } from '../../src/sys/epoll.ts';
import * as io from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { iovecWrite } from '../../src/sys/socket.ts';

const buffer = new NativeBuffer(256);

function pipe(flags = O_CLOEXEC | O_NONBLOCK): [number, number] {
  const fds = new Int32Array(2);
  expect(io.pipe2(fds, flags)).toBe(0);
  return [fds[0]!, fds[1]!];
}

describe('descriptors', () => {
  it('writes and reads through a pipe, whole and in pieces', () => {
    const [from, to] = pipe();
    buffer.u8.set([1, 2, 3, 4, 5, 6], 0);
    expect(io.write(to, buffer.address, 6)).toBe(6);
    expect(io.ioctlReadInt(from, FIONREAD)).toBe(6);
    // Scatter: two bytes to 100, the rest to 200.
    iovecWrite(buffer.u32, 8, buffer.address + 100, 2);
    iovecWrite(buffer.u32, 12, buffer.address + 200, 56);
    expect(io.readv(from, buffer.address + 32, 2)).toBe(6);
    expect([...buffer.u8.subarray(100, 102), ...buffer.u8.subarray(200, 204)]).toEqual([1, 2, 3, 4, 5, 6]);
    // Gather, the other way round.
    iovecWrite(buffer.u32, 8, buffer.address + 200, 4);
    iovecWrite(buffer.u32, 12, buffer.address + 100, 2);
    expect(io.writev(to, buffer.address + 32, 2)).toBe(6);
    expect(io.read(from, buffer.address, 100)).toBe(6);
    expect([...buffer.u8.subarray(0, 6)]).toEqual([3, 4, 5, 6, 1, 2]);
    io.close(from);
    io.close(to);
  });

  it('failures: return -errno', () => {
    const [from, to] = pipe();
    expect(io.read(from, buffer.address, 1)).toBe(-Errno.EAGAIN);
    expect(io.read(-1, buffer.address, 1)).toBe(-Errno.EBADF);
    expect(io.write(from, buffer.address, 1)).toBe(-Errno.EBADF);
    expect(io.write(to, 0, 1)).toBe(-Errno.EFAULT);
    expect(io.close(to)).toBe(0);
    expect(io.close(to)).toBe(-Errno.EBADF);
    expect(io.read(from, buffer.address, 1)).toBe(0);
    io.close(from);
  });

  it('reserveDescriptors: the table grows at once, no descriptor stays open; beyond the limit: no effect', () => {
    const [from, to] = pipe();
    const slots = (): number =>
      Number(/^FDSize:\s*(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
    const want = slots() + 1;
    io.reserveDescriptors(from, want);
    expect(slots()).toBeGreaterThan(want);
    expect(io.fcntl(want, F_GETFD, 0)).toBe(-Errno.EBADF);
    io.reserveDescriptors(from, 0x7fff_ffff);
    io.close(from);
    io.close(to);
  });

  it('flags: non-blocking, close-on-exec, duplicates', () => {
    const [from, to] = pipe(0);
    expect(io.setNonBlocking(from)).toBe(0);
    expect(io.fcntlGetFlags(from) & O_NONBLOCK).toBe(O_NONBLOCK);
    expect(io.setNonBlocking(from, false)).toBe(0);
    expect(io.fcntlGetFlags(from) & O_NONBLOCK).toBe(0);
    expect(io.fcntl(from, F_GETFD, 0)).toBe(0);
    expect(io.setCloexec(from)).toBe(0);
    expect(io.fcntl(from, F_GETFD, 0)).toBe(FD_CLOEXEC);
    expect(io.setCloexec(from, false)).toBe(0);
    expect(io.fcntl(from, F_GETFD, 0)).toBe(0);
    const high = io.dupAbove(from, 700);
    expect(high).toBeGreaterThanOrEqual(700);
    expect(io.dup3(to, high, O_CLOEXEC)).toBe(high);
    expect(io.write(high, buffer.address, 3)).toBe(3);
    expect(io.read(from, buffer.address, 10)).toBe(3);
    expect(io.setNonBlocking(-1)).toBe(-Errno.EBADF);
    expect(io.setCloexec(-1)).toBe(-Errno.EBADF);
    for (const fd of [from, to, high]) io.close(fd);
  });

  it('pread: reads at an offset of a file', () => {
    const directory = mkdtempSync(`${tmpdir()}/io-`);
    const fd = openSync(`${directory}/file`, 'w+');
    rmSync(directory, { recursive: true });
    buffer.u8.set([9, 8, 7, 6], 0);
    expect(io.write(fd, buffer.address, 4)).toBe(4);
    expect(io.pread(fd, buffer.address + 10, 10, 1)).toBe(3);
    expect([...buffer.u8.subarray(10, 13)]).toEqual([8, 7, 6]);
    expect(io.pread(fd, buffer.address, 10, -1)).toBe(-Errno.EINVAL);
    io.close(fd);
  });

  it('splice: from pipe to pipe', () => {
    const [fromA, toA] = pipe();
    const [fromB, toB] = pipe();
    expect(io.splice(fromA, toB, 100, SPLICE_F_NONBLOCK)).toBe(-Errno.EAGAIN);
    buffer.u8.fill(42, 0, 20);
    io.write(toA, buffer.address, 20);
    expect(io.splice(fromA, toB, 100, SPLICE_F_NONBLOCK)).toBe(20);
    expect(io.read(fromB, buffer.address + 100, 100)).toBe(20);
    expect(buffer.u8[119]).toBe(42);
    for (const fd of [fromA, toA, fromB, toB]) io.close(fd);
  });

  it('eventfd: writes add up, one read drains', () => {
    const fd = io.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    expect(io.eventfdDrain(fd)).toBe(-Errno.EAGAIN);
    expect(io.eventfdWrite(fd)).toBe(8);
    expect(io.eventfdWrite(fd)).toBe(8);
    expect(io.read(fd, buffer.address, 8)).toBe(8);
    expect(buffer.dv.getBigUint64(0, true)).toBe(2n);
    expect(io.eventfdWrite(fd)).toBe(8);
    expect(io.eventfdDrain(fd)).toBe(8);
    expect(io.eventfdDrain(fd)).toBe(-Errno.EAGAIN);
    io.close(fd);
  });
});

describe('epoll', () => {
  it('several descriptors: both data words are returned', () => {
    const ep = epollCreate();
    const events = new EpollEvents(8);
    const [from, to] = pipe();
    const bell = io.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    expect(epollAdd(ep, from, EPOLLIN | EPOLLET, 0xffff_ffff, 0x8000_0001)).toBe(0);
    expect(epollAdd(ep, bell, EPOLLIN, 7, 0)).toBe(0);
    expect(epollAdd(ep, bell, EPOLLIN, 7, 0)).toBe(-Errno.EEXIST);
    expect(epollWait(ep, events, 0)).toBe(0);
    io.write(to, buffer.address, 1);
    io.eventfdWrite(bell);
    expect(epollWait(ep, events, 1000)).toBe(2);
    const seen = [0, 1].map((i) => [events.eventsOf(i), events.dataLo(i), events.dataHi(i)]);
    expect(seen).toContainEqual([EPOLLIN, 0xffff_ffff, 0x8000_0001]);
    expect(seen).toContainEqual([EPOLLIN, 7, 0]);
    // Edge-triggered: one event. Level-triggered: events until drained.
    expect(epollWait(ep, events, 0)).toBe(1);
    expect(events.dataLo(0)).toBe(7);
    expect(epollMod(ep, bell, EPOLLIN | EPOLLOUT, 8, 9)).toBe(0);
    expect(epollWait(ep, events, 0)).toBe(1);
    expect([events.eventsOf(0), events.dataLo(0), events.dataHi(0)]).toEqual([EPOLLIN | EPOLLOUT, 8, 9]);
    expect(epollDel(ep, bell)).toBe(0);
    io.close(to);
    expect(epollWait(ep, events, 1000)).toBe(1);
    expect(events.eventsOf(0) & EPOLLHUP).toBe(EPOLLHUP);
    for (const fd of [from, bell, ep]) io.close(fd);
  });

  it('no event: returns after the time-out', () => {
    const ep = epollCreate();
    const begin = performance.now();
    expect(epollWait(ep, new EpollEvents(1), 30)).toBe(0);
    expect(performance.now() - begin).toBeGreaterThanOrEqual(29);
    io.close(ep);
  });

  it('more events than room: the rest at the next wait', () => {
    const ep = epollCreate();
    const bells = [0, 1, 2].map(() => io.eventfd(1, EFD_NONBLOCK));
    bells.forEach((bell, i) => {
      epollAdd(ep, bell, EPOLLIN | EPOLLET, i, 0);
    });
    const events = new EpollEvents(2);
    const seen: number[] = [];
    for (let n = epollWait(ep, events, 0); n > 0; n = epollWait(ep, events, 0)) {
      for (let i = 0; i < n; i++) seen.push(events.dataLo(i));
    }
    expect(seen.sort()).toEqual([0, 1, 2]);
    for (const fd of [...bells, ep]) io.close(fd);
  });
});
