#include "textflag.h"

// func replaceGettime()
TEXT ·replaceGettime(SB), NOSPLIT, $0
	MOVQ runtime·vdsoClockgettimeSym(SB), AX
	MOVQ AX, ·realGettime(SB)
	TESTQ AX, AX
	JEQ  done
	LEAQ ·gettime(SB), AX
	MOVQ AX, runtime·vdsoClockgettimeSym(SB)
done:
	RET

// int clock_gettime(clockid_t in DI, struct timespec * in SI), as C calls it.
TEXT ·gettime(SB), NOSPLIT|NOFRAME, $0
	SUBQ $24, SP
	MOVQ DI, 8(SP)
	MOVQ SI, 16(SP)
	MOVQ ·realGettime(SB), AX
	CALL AX
	MOVQ 8(SP), DI
	MOVQ 16(SP), SI
	ADDQ $24, SP
	CMPL DI, $0 // CLOCK_REALTIME
	JNE  done
	MOVQ ·offset(SB), CX
	MOVQ (CX), CX
	ADDQ CX, (SI)
done:
	RET
