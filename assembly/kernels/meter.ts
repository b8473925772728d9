export const dummy: i32 = 1;
