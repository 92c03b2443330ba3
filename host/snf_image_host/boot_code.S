# Boot code of the partition header that file system dumps get: 16-bit, at most 440 bytes.
#
# Finds the one active primary partition, loads its first sector and jumps to it with the drive number in
# DL. None or several active partitions, a read error or a sector that is no boot sector end with a message.
#
#   as --32 boot_code.S -o boot_code.o && objcopy -O binary boot_code.o boot_code.bin

        .code16
        .set    loaded, 0x7c00          # where the BIOS puts us, and boot sectors expect to be
        .set    moved, 0x0600           # where we go to make room
        .set    table, moved + 446
        .set    packet, 0x0800          # disk address packet of INT 13h, function 42h

start:
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $loaded, %sp
        sti
        cld
        movw    $loaded, %si
        movw    $moved, %di
        movw    $256, %cx
        rep movsw
        ljmp    $0, $(moved + relocated - start)

relocated:
        movw    $table, %si
        movw    $4, %cx
        xorw    %bp, %bp                # the active entry, once it is found
scan:
        cmpb    $0x80, (%si)
        jne     next
        testw   %bp, %bp
        jnz     several
        movw    %si, %bp
next:
        addw    $16, %si
        loop    scan
        testw   %bp, %bp
        jz      none

        movw    $packet, %si
        movl    $0x00010010, (%si)      # size of the packet, one sector
        movl    $loaded, 4(%si)         # 0000:7c00
        movl    8(%bp), %eax
        movl    %eax, 8(%si)
        movl    $0, 12(%si)
        movb    $0x42, %ah
        pushw   %dx
        int     $0x13
        popw    %dx
        jc      unreadable
        cmpw    $0xaa55, loaded + 510
        jne     unbootable
        movw    %bp, %si                # boot sectors may look at their entry
        ljmp    $0, $loaded

several:
        movw    $(moved + several_text - start), %si
        jmp     print
none:
        movw    $(moved + none_text - start), %si
        jmp     print
unreadable:
        movw    $(moved + unreadable_text - start), %si
        jmp     print
unbootable:
        movw    $(moved + unbootable_text - start), %si
print:
        lodsb
        testb   %al, %al
        jz      stop
        movb    $0x0e, %ah
        movw    $7, %bx
        int     $0x10
        jmp     print
stop:
        hlt
        jmp     stop

several_text:
        .asciz  "Several active partitions\r\n"
none_text:
        .asciz  "No active partition\r\n"
unreadable_text:
        .asciz  "Read error\r\n"
unbootable_text:
        .asciz  "Partition is not bootable\r\n"
