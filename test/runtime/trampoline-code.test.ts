// @vitest: beside
/** The machine code of the trampolines, of both architectures, on any machine. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { describe, expect, it } from 'vitest';
import {
  CALL_SLOTS,
  ERRNO_AT,
  ERRNO_FUNCTION_AT,
  FUNCTIONS_AT,
  SLOT_BYTES,
  SLOTS,
  systemCalls,
  TRAMPOLINE_BYTES,
  writeTrampolineCode,
} from '../../src/runtime/bun/trampoline-code.ts';
import { type SyscallName, syscallNumber } from '../../src/sys/syscall-numbers.ts';
import { describeNeeding, requireTool } from '../support/require.ts';

const LAST = SLOTS - 1;
const LAST_CALL = SLOTS + CALL_SLOTS - 1;

function codeOf(arch: string): Uint8Array {
  const memory = new ArrayBuffer(TRAMPOLINE_BYTES);
  writeTrampolineCode(arch, memory);
  return new Uint8Array(memory);
}
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** A signed 32-bit distance as its bytes are written. */
function distance32(from: number, to: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(to - from);
  return bytes.toString('hex');
}

it('system calls without the C library: the numbers of the table of all calls', () => {
  for (const [name, number] of Object.entries(systemCalls(process.arch)))
    expect([name, number]).toEqual([name, syscallNumber(name as SyscallName)]);
});

describe('x86-64, encodings of the Intel manual, volume 2', () => {
  const code = codeOf('x64');
  it.each([0, 1, LAST])('trampoline %i', (slot) => {
    const at = slot * SLOT_BYTES;
    const expected = [
      '4883ec18', // sub rsp, 24: REX.W 83 /5 ib
      '31c0', // xor eax, eax: 31 /r
      `ff15${distance32(at + 12, FUNCTIONS_AT + slot * 8)}`, // call [rip + function]: FF /2
      '83f8ff', // cmp eax, -1: 83 /7 ib
      '751b', // jne +27: 75 cb
      '48890424', // mov [rsp], rax: REX.W 89 /r
      '90', // nop
      `ff15${distance32(at + 28, ERRNO_FUNCTION_AT)}`, // call [rip + __errno_location]
      '8b08', // mov ecx, [rax]: 8B /r
      '6690', // xchg ax, ax: a nop of two bytes
      '9090', // nop, nop
      `890d${distance32(at + 40, ERRNO_AT)}`, // mov [rip + copy], ecx: 89 /r
      '488b0424', // mov rax, [rsp]: REX.W 8B /r
      '4883c418', // add rsp, 24: REX.W 83 /0 ib
      'c3', // ret
    ].join('');
    expect(hex(code.subarray(at, at + expected.length / 2))).toBe(expected);
    expect(code.subarray(at + expected.length / 2, at + SLOT_BYTES).every((byte) => byte === 0)).toBe(true);
    expect(17 + 27).toBe(expected.indexOf('4883c418') / 2); // jne, whose end is at 17, goes to the add
  });

  it.each([SLOTS, LAST_CALL])('trampoline %i, of a system call', (slot) => {
    const at = slot * SLOT_BYTES;
    const expected = [
      '4989ca', // mov r10, rcx: REX.WB 89 /r
      '0f1f00', // nop [rax]: 0F 1F /0
      `8b05${distance32(at + 12, FUNCTIONS_AT + slot * 8)}`, // mov eax, [rip + number]: 8B /r
      '0f05', // syscall
      '483d00f0ffff', // cmp rax, -4096: REX.W 3D id
      '7701', // ja +1: 77 cb
      'c3', // ret
      'f7d8', // neg eax: F7 /3
      '0f1f440000', // nop [rax + rax + 0]: 0F 1F /0
      `8905${distance32(at + 36, ERRNO_AT)}`, // mov [rip + copy], eax: 89 /r
      '4883c8ff', // or rax, -1: REX.W 83 /1 ib
      'c3', // ret
    ].join('');
    expect(hex(code.subarray(at, at + expected.length / 2))).toBe(expected);
    expect(22 + 1).toBe(expected.indexOf('f7d8') / 2); // ja, whose end is at 22, goes to the neg
  });
});

describe('AArch64, encodings of the Arm manual (DDI 0487), section C6.2', () => {
  const code = codeOf('arm64');
  /** imm19 of LDR (literal) and B.cond: words from the instruction. */
  const imm19 = (from: number, to: number): number => (((to - from) / 4) & 0x7ffff) * 2 ** 5;
  const adr = (register: number, from: number, to: number): number =>
    0x10000000 + ((to - from) & 3) * 2 ** 29 + (((to - from) >> 2) & 0x7ffff) * 2 ** 5 + register;

  it.each([0, 1, LAST])('trampoline %i', (slot) => {
    const at = slot * SLOT_BYTES;
    const expected = [
      0xa9be7bfd, // stp x29, x30, [sp, #-32]!: 10 101 0 011 0 imm7 = -4, Rt2 = 30, Rn = 31, Rt = 29
      0x58000010 + imm19(at + 4, FUNCTIONS_AT + slot * 8), // ldr x16, function: 01 011 0 00 imm19, Rt = 16
      0xd63f0200, // blr x16: 1101011000111111000000, Rn = 16, 00000
      0x3100041f, // cmn w0, #1: adds wzr, w0, #1: 0 0 1 100010 0 imm12 = 1, Rn = 0, Rd = 31
      0x54000001 + imm19(at + 16, at + 48), // b.ne done: 01010100 imm19, 0, cond = 0001
      0xf9000be0, // str x0, [sp, #16]: 11 111 0 01 00 imm12 = 2, Rn = 31, Rt = 0
      0x58000010 + imm19(at + 24, ERRNO_FUNCTION_AT), // ldr x16, __errno_location
      0xd63f0200, // blr x16
      0xb9400001, // ldr w1, [x0]: 10 111 0 01 01 imm12 = 0, Rn = 0, Rt = 1
      adr(2, at + 36, ERRNO_AT), // adr x2, copy: 0 immlo 10000 immhi, Rd = 2
      0xb9000041, // str w1, [x2]: 10 111 0 01 00 imm12 = 0, Rn = 2, Rt = 1
      0xf9400be0, // ldr x0, [sp, #16]
      0xa8c27bfd, // done: ldp x29, x30, [sp], #32: 10 101 0 001 1 imm7 = 4
      0xd65f03c0, // ret: 1101011001011111000000, Rn = 30, 00000
    ];
    const view = new DataView(code.buffer);
    expect(expected.map((_, i) => view.getUint32(at + i * 4, true).toString(16))).toEqual(
      expected.map((word) => word.toString(16)),
    );
    expect(code.subarray(at + expected.length * 4, at + SLOT_BYTES).every((byte) => byte === 0)).toBe(true);
  });

  it.each([SLOTS, LAST_CALL])('trampoline %i, of a system call', (slot) => {
    const at = slot * SLOT_BYTES;
    const expected = [
      0x58000010 + imm19(at, FUNCTIONS_AT + slot * 8), // ldr x16, number
      0xaa1003e8, // mov x8, x16: orr x8, xzr, x16: 1 01 01010 00 0 Rm = 16, 0, Rn = 31, Rd = 8
      0xd4000001, // svc #0: 11010100 000 imm16 = 0, 00001
      0xb13ffc1f, // cmn x0, #4095: adds xzr, x0, #4095: 1 0 1 100010 0 imm12 = 4095, Rn = 0, Rd = 31
      0x54000002 + imm19(at + 16, at + 24), // b.hs failed: cond = 0010
      0xd65f03c0, // ret
      0x4b0003e0, // failed: neg w0, w0: sub w0, wzr, w0: 0 1 0 01011 00 0 Rm = 0, 0, Rn = 31, Rd = 0
      adr(2, at + 28, ERRNO_AT), // adr x2, copy
      0xb9000040, // str w0, [x2]
      0x92800000, // mov x0, #-1: movn x0, #0: 1 00 100101 00 imm16 = 0, Rd = 0
      0xd65f03c0, // ret
    ];
    const view = new DataView(code.buffer);
    expect(expected.map((_, i) => view.getUint32(at + i * 4, true).toString(16))).toEqual(
      expected.map((word) => word.toString(16)),
    );
  });
});

describeNeeding('disassembled', [requireTool('objdump', 'apt package binutils')], () => {
  /** Instructions, without the address of each and the target in symbols behind some. */
  function disassembly(arch: string, machine: string): string[] {
    const dir = mkdtempSync(`${tmpdir()}/trampoline-`);
    try {
      writeFileSync(`${dir}/code`, codeOf(arch).subarray(SLOT_BYTES, 2 * SLOT_BYTES));
      const args = [
        '-D',
        '-b',
        'binary',
        '-m',
        machine,
        '-M',
        'intel',
        `--adjust-vma=${SLOT_BYTES}`,
        `${dir}/code`,
      ];
      const { stdout } = spawnSync('objdump', args, { encoding: 'utf8' });
      return [...stdout.matchAll(/^\s+[0-9a-f]+:\t[0-9a-f ]+\t(.*)$/gm)].map(([, text]) =>
        text!.replace(/\s+/g, ' ').trim(),
      );
    } finally {
      rmSync(dir, { recursive: true });
    }
  }

  it('x86-64: what the comments say', () => {
    const hexAddress = (at: number): string => `# 0x${at.toString(16)}`;
    expect(disassembly('x64', 'i386:x86-64').slice(0, 16)).toEqual([
      'sub rsp,0x18',
      'xor eax,eax',
      expect.stringMatching(`^call QWORD PTR \\[rip\\+0x.*${hexAddress(FUNCTIONS_AT + 8)}$`),
      'cmp eax,0xffffffff',
      `jne 0x${(SLOT_BYTES + 44).toString(16)}`,
      'mov QWORD PTR [rsp],rax',
      'nop',
      expect.stringMatching(`^call QWORD PTR \\[rip\\+0x.*${hexAddress(ERRNO_FUNCTION_AT)}$`),
      'mov ecx,DWORD PTR [rax]',
      'xchg ax,ax',
      ...['nop', 'nop'],
      expect.stringMatching(`^mov DWORD PTR \\[rip\\+0x.*${hexAddress(ERRNO_AT)}$`),
      'mov rax,QWORD PTR [rsp]',
      'add rsp,0x18',
      'ret',
    ]);
  });
});
